r"""Gated feedback: layers whose candidates see what every layer remembers, through a gate for each pair of layers.

    g^{i→j} = σ(w^{i→j} · h_t^{j-1} + u^{i→j} · h*_{t-1})               one number per pair of layers
    h̃_t^j  = tanh(W^j h_t^{j-1} + b^j + Σ_i g^{i→j} U^{i→j} h_{t-1}^i)    the candidate of layer j

where h* is all layers' h side by side, h^0 = x, and the other gates of a layer are those of its LSTM or GRU; a GRU's
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

_GATES = {"tanh": 0, "gru": 2, "lstm": 3}  # besides the candidate: none; r, z; i, f, o


class GatedFeedbackCell(Cell[tuple[Any, ...]]):
    """One step of a whole stack with gated feedback: a cell, so that `Recurrent` runs it as one layer of its own.

    A state has one entry for each layer, as `Recurrent`'s has; the output is the last layer's. For layer n there are
    weight_ih_ln (gates × hidden, input), its candidate's rows last; weight_hh_ln, the gates' without the candidate;
    bias_ln (gates × hidden,); weight_hh_feedback_ln (hidden, layers × hidden); weight_reset_ih_ln (layers, input) and
    weight_reset_hh_ln (layers, layers × hidden). All are drawn from U(−1/√hidden, 1/√hidden), but for the forget gate's
    bias.

    Args:
        input_size: features of an input.
        hidden_size: units of each layer, and features of the output.
        feedback_layers: layers within the cell.
        unit: "lstm", "gru" or "tanh".
        forget_bias: the bias of the LSTMs' forget gates at the start.

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
        gates, everything = _GATES[unit], feedback_layers * hidden_size
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
                    self._of("bias", layer)[self.hidden_size : 2 * self.hidden_size] = self.forget_bias

    def initial_state(self, batch: int, *, like: Tensor) -> tuple[Any, ...]:
        """Zeros (batch, hidden) for each layer, on the device and in the dtype of `like`."""
        kind = LSTMState if self.unit == "lstm" else HiddenState
        return tuple(
            kind(*(like.new_zeros(batch, self.hidden_size) for _ in kind._fields)) for _ in range(self.feedback_layers)
        )

    def project(self, inputs: Tensor) -> Tensor:
        """(..., input) -> (..., gates × hidden + layers): what the first layer takes from the input."""
        expect(inputs, "... input", input=self.input_size, name="inputs")
        return self._read(inputs, 0)

    def step(self, projected: Tensor, state: tuple[Any, ...], noise: None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """What the first layer takes from the input, and a state -> the last layer's h (batch, hidden), the next."""
        remembered = torch.cat([of_layer.h for of_layer in state], dim=-1)
        following: list[Any] = []
        for layer, old in enumerate(state):
            taken = projected if layer == 0 else self._read(following[-1].h, layer)
            rows, of_resets = taken.split([taken.shape[-1] - self.feedback_layers, self.feedback_layers], dim=-1)
            resets = torch.sigmoid(of_resets + linear(remembered, self._of("weight_reset_hh", layer)))
            seen = remembered.unflatten(-1, (self.feedback_layers, self.hidden_size)) * resets.unsqueeze(-1)
            feedback = linear(seen.flatten(-2), self._of("weight_hh_feedback", layer))
            following.append(self._advance(layer, rows, feedback, old))
        return following[-1].h, tuple(following)

    def _read(self, values: Tensor, layer: int) -> Tensor:
        """(..., below) -> (..., gates × hidden + layers)."""
        rows = linear(values, self._of("weight_ih", layer), self._of("bias", layer))
        return torch.cat([rows, linear(values, self._of("weight_reset_ih", layer))], dim=-1)

    def _advance(self, layer: int, rows: Tensor, feedback: Tensor, old: Any) -> Any:
        """A layer's next state, from what its gates take from below, and what comes back from all layers."""
        *gates, candidate = rows.split(self.hidden_size, dim=-1)
        if self.unit == "tanh":
            return HiddenState(torch.tanh(candidate + feedback))
        own = linear(old.h, self._of("weight_hh", layer)).split(self.hidden_size, dim=-1)
        opened = [torch.sigmoid(one + other) for one, other in zip(gates, own, strict=True)]
        if self.unit == "gru":
            r, z = opened
            n = torch.tanh(candidate + r * feedback)
            return HiddenState(n + z * (old.h - n))
        i, f, o = opened
        c = f * old.c + i * torch.tanh(candidate + feedback)
        return LSTMState(o * torch.tanh(c), c)

    def _of(self, name: str, layer: int) -> nn.Parameter:
        return getattr(self, f"{name}_l{layer}")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, feedback_layers={self.feedback_layers}, unit={self.unit}"
