r"""Gated feedback: each layer's candidate depends on the last state of every layer, with a gate per pair of layers.

    g^{i→j} = σ(w^{i→j} · h_t^{j-1} + u^{i→j} · h*_{t-1})               one number per pair of layers
    h̃_t^j  = tanh(W^j h_t^{j-1} + b^j + Σ_i g^{i→j} U^{i→j} h_{t-1}^i)    the candidate of layer j

where h* concatenates the h of all layers, h^0 = x, and the other gates of a layer are those of its LSTM or GRU; a GRU's
reset gate multiplies the sum over i. Chung, Gulcehre, Cho & Bengio 2015, "Gated Feedback Recurrent Neural Networks",
eq. 6-8 and section 3.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from unrolled.cells.base import Cell
from unrolled.shapes import expect
from unrolled.state import HiddenState, LSTMState

_GATES = {"tanh": "", "gru": "rz", "lstm": "ifo"}  # names, besides the candidate


class GatedFeedbackCell(Cell[tuple[Any, ...]]):
    """One step of a stack of layers with gated feedback. `Recurrent` runs the whole stack as one layer.

    The state has one entry per layer. The output is that of the last layer. The parameters of layer n are weight_ih_ln
    (gates × hidden, input), with the candidate's rows last; weight_hh_ln, for the gates without the candidate; bias_ln
    (gates × hidden,); weight_hh_feedback_ln (hidden, layers × hidden); weight_reset_ih_ln (layers, input); and
    weight_reset_hh_ln (layers, layers × hidden). All are drawn from U(−1/√hidden, 1/√hidden), except the forget gate's
    bias.

    Args:
        input_size: number of input features.
        hidden_size: number of units of each layer, and of features of the output.
        feedback_layers: number of layers within the cell.
        unit: "lstm", "gru" or "tanh".
        forget_bias: initial bias of the LSTMs' forget gates.

    Raises:
        ValueError: a size or number below one, an unknown unit.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        feedback_layers: int = 2,
        unit: str = "lstm",
        forget_bias: float = 1.0,
    ) -> None:
        super().__init__(input_size, hidden_size, output_size=hidden_size)
        if feedback_layers < 1:
            raise ValueError(f"feedback_layers is {feedback_layers}, expected 1 or more")
        if unit not in _GATES:
            raise ValueError(f"unit is {unit!r}, expected one of {', '.join(_GATES)}")
        self.feedback_layers = feedback_layers
        self.unit = unit
        self.forget_bias = forget_bias
        gates, everything = len(_GATES[unit]), feedback_layers * hidden_size
        for layer in range(feedback_layers):
            below = input_size if layer == 0 else hidden_size
            shapes = {"weight_ih": ((gates + 1) * hidden_size, below), "bias": ((gates + 1) * hidden_size,)}
            shapes |= {"weight_hh": (gates * hidden_size, hidden_size)} if gates else {}
            shapes |= {"weight_hh_feedback": (hidden_size, everything), "weight_reset_ih": (feedback_layers, below)}
            shapes |= {"weight_reset_hh": (feedback_layers, everything)}
            for name, shape in shapes.items():
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(torch.empty(shape)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters from U(−1/√hidden, 1/√hidden); set the forget gates' bias."""
        bound = self.hidden_size**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        if self.unit == "lstm":
            for layer in range(self.feedback_layers):
                with torch.no_grad():
                    self._parameter("bias", layer)[self.hidden_size : 2 * self.hidden_size] = self.forget_bias

    def initial_state(self, batch: int, *, like: Tensor) -> tuple[Any, ...]:
        """Return zeros (batch, hidden) for each layer, with the device and the dtype of `like`."""
        kind = LSTMState if self.unit == "lstm" else HiddenState
        return tuple(
            kind(*(like.new_zeros(batch, self.hidden_size) for _ in kind._fields)) for _ in range(self.feedback_layers)
        )

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the input's contribution to the first layer: (..., input) -> (..., gates × hidden + layers)."""
        expect(inputs, "... input", input=self.input_size, name="inputs")
        return self._project(inputs, 0)

    def step(self, projected: Tensor, state: tuple[Any, ...], noise: None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """Compute the last layer's h (batch, hidden), which is the output, and the next state of all layers."""
        last = torch.cat([of_layer.h for of_layer in state], dim=-1)
        new: list[Any] = []
        for layer, old in enumerate(state):
            of_input = projected if layer == 0 else self._project(new[-1].h, layer)
            rows, of_resets = of_input.split([of_input.shape[-1] - self.feedback_layers, self.feedback_layers], dim=-1)
            resets = torch.sigmoid(of_resets + linear(last, self._parameter("weight_reset_hh", layer)))
            resets = self.tap(f"reset_l{layer}", resets)
            gated = last.unflatten(-1, (self.feedback_layers, self.hidden_size)) * resets.unsqueeze(-1)
            feedback = linear(gated.flatten(-2), self._parameter("weight_hh_feedback", layer))
            new.append(self._step_layer(layer, rows, feedback, old))
        return new[-1].h, tuple(new)

    def _project(self, inputs: Tensor, layer: int) -> Tensor:
        """Compute the contribution of a layer's input: (..., layer input) -> (..., gates × hidden + layers)."""
        rows = linear(inputs, self._parameter("weight_ih", layer), self._parameter("bias", layer))
        return torch.cat([rows, linear(inputs, self._parameter("weight_reset_ih", layer))], dim=-1)

    def _step_layer(self, layer: int, rows: Tensor, feedback: Tensor, old: Any) -> Any:
        """Compute a layer's next state from the projected input and the feedback of all layers."""
        *gates, candidate = rows.split(self.hidden_size, dim=-1)
        if self.unit == "tanh":
            return HiddenState(torch.tanh(candidate + feedback))
        own = linear(old.h, self._parameter("weight_hh", layer)).split(self.hidden_size, dim=-1)
        of_gates = zip(_GATES[self.unit], gates, own, strict=True)
        gates = [self.tap(f"{name}_l{layer}", torch.sigmoid(one + other)) for name, one, other in of_gates]
        if self.unit == "gru":
            r, z = gates
            n = self.tap(f"n_l{layer}", torch.tanh(candidate + r * feedback))
            return HiddenState(n + z * (old.h - n))
        i, f, o = gates
        c = f * old.c + i * self.tap(f"g_l{layer}", torch.tanh(candidate + feedback))
        return LSTMState(o * torch.tanh(c), c)

    def _parameter(self, name: str, layer: int) -> nn.Parameter:
        return getattr(self, f"{name}_l{layer}")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, feedback_layers={self.feedback_layers}, unit={self.unit}"
