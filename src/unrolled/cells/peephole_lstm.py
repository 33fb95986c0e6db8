r"""Long short-term memory with peepholes, and seven of its eight variants.

    i_t = σ(W_i x_t + b_i + U_i h_{t-1} + d_i + p_i ⊙ c_{t-1})
    f_t = σ(W_f x_t + b_f + U_f h_{t-1} + d_f + p_f ⊙ c_{t-1})
    g_t = γ(W_g x_t + b_g + U_g h_{t-1} + d_g)
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    o_t = σ(W_o x_t + b_o + U_o h_{t-1} + d_o + p_o ⊙ c_t)
    h_t = o_t ⊙ η(c_t)

Gers & Schmidhuber 2000, "Recurrent Nets that Time and Count"; Graves & Schmidhuber 2005, "Framewise Phoneme
Classification with Bidirectional LSTM"; as in Graves 2013, "Generating Sequences With Recurrent Neural Networks", eq.
7-11. The variants are those of Greff et al. 2017, "LSTM: A Search Space Odyssey", section 3, with the block of its
figure 1: no input, forget or output gate (NIG, NFG, NOG: the gate is always 1), no input or output activation (NIAF,
NOAF: γ or η is the identity), coupled gates (CIFG: f_t = 1 − i_t), no peepholes (NP). The eighth, full gate recurrence,
is `FullGateLSTMCell`.
"""

from typing import cast

import torch
from torch import Tensor, nn

from unrolled.cells.activations import activation
from unrolled.cells.noisy import NoisyCell
from unrolled.state import LSTMState

GATES = {"input": "i", "forget": "f", "output": "o"}


class PeepholeLSTMCell(NoisyCell[LSTMState]):
    """One step of a long short-term memory with peephole connections from the cell to the gates.

    Parameters have the names, order (i, f, g, o, without missing gates) and shapes of torch.nn.LSTMCell's. In addition
    there are peephole_i, peephole_f and peephole_o (hidden,). All are drawn from U(−1/√hidden, 1/√hidden), except the
    forget gate's bias.

    Args:
        input_size: number of input features.
        hidden_size: number of features of the state and of the output.
        peepholes: whether the gates have peephole connections.
        missing_gate: "input", "forget" or "output", the gate that is always 1; None for all three gates.
        coupled: whether the forget gate is 1 − i_t, without parameters of its own.
        gate_activation: σ, by name.
        input_activation: γ, by name: "tanh", "softsign", "identity", … (`unrolled.cells.activations`).
        output_activation: η, by name.
        forget_bias: initial bias of the forget gate. With coupled gates, the input gate's bias is its negative.
        candidate_dropout: probability that an element of g_t is dropped at a step.
        zoneout: probability that an element of h keeps its value at a step.
        zoneout_c: the same for c.
        recurrent_dropout: probability that a unit of h_{t-1} is dropped for a whole unroll.
        weight_drop: probability that an element of weight_hh is dropped for a whole unroll.

    Raises:
        ValueError: a size below one, a probability outside [0, 1), an unknown gate or activation, coupled gates one of
            which is missing.
    """

    state_type = LSTMState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        peepholes: bool = True,
        missing_gate: str | None = None,
        coupled: bool = False,
        gate_activation: str = "sigmoid",
        input_activation: str = "tanh",
        output_activation: str = "tanh",
        forget_bias: float = 1.0,
        candidate_dropout: float = 0.0,
        zoneout: float = 0.0,
        zoneout_c: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        self.blocks = _blocks(missing_gate, coupled)
        self.gates = len(self.blocks)
        super().__init__(
            input_size,
            hidden_size,
            candidate_dropout=candidate_dropout,
            zoneout=(zoneout, zoneout_c),
            recurrent_dropout=recurrent_dropout,
            weight_drop=weight_drop,
        )
        self.peepholes = peepholes
        self.coupled = coupled
        self.forget_bias = forget_bias
        self._gate_activation = activation(gate_activation, "gate_activation")
        self._input_activation = activation(input_activation, "input_activation")
        self._output_activation = activation(output_activation, "output_activation")
        self.activations = (gate_activation, input_activation, output_activation)
        for gate in GATES.values():
            exists = peepholes and gate in self.blocks
            self.register_parameter(f"peephole_{gate}", nn.Parameter(torch.empty(hidden_size)) if exists else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters from U(−1/√hidden, 1/√hidden); set the forget gate's bias."""
        super().reset_parameters()
        gate, bias = ("i", -self.forget_bias) if self.coupled else ("f", self.forget_bias)
        if gate in self.blocks:
            first = self.blocks.index(gate) * self.hidden_size
            with torch.no_grad():
                self.bias_ih[first : first + self.hidden_size] = bias
                self.bias_hh[first : first + self.hidden_size] = 0.0

    def pointwise(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: LSTMState
    ) -> tuple[Tensor, LSTMState]:
        """Compute h_t, which is the output, and the next state."""
        affine = {name: one + other for name, one, other in zip(self.blocks, projected, recurrent, strict=False)}
        i = self._gate("i", affine, state.c)
        f = self.tap("f", cast(Tensor, 1.0 - i)) if self.coupled else self._gate("f", affine, state.c)
        g = self.tap("g", self.apply_candidate_dropout(self._input_activation(affine["g"]), projected))
        c = f * state.c + i * g
        h = self._gate("o", affine, c) * self._output_activation(c)
        new = self.apply_zoneout(LSTMState(h, c), state, projected)
        return new.h, new

    def _gate(self, name: str, affine: dict[str, Tensor], c: Tensor) -> Tensor | float:
        """Compute a gate; a missing gate is 1."""
        if name not in affine:
            return 1.0
        peephole = getattr(self, f"peephole_{name}") if self.peepholes else None
        value = affine[name] if peephole is None else affine[name] + peephole * c
        return self.tap(name, self._gate_activation(value))

    def extra_repr(self) -> str:
        gates = f"gates={self.blocks}, coupled={self.coupled}, peepholes={self.peepholes}"
        return f"{super().extra_repr()}, {gates}, activations={', '.join(self.activations)}"


def _blocks(missing_gate: str | None, coupled: bool) -> str:
    """Return the names of a cell's gates, in torch's order."""
    if missing_gate is not None and missing_gate not in GATES:
        raise ValueError(f"missing_gate is {missing_gate!r}, expected one of {', '.join(GATES)}, or None")
    if coupled and missing_gate in ("input", "forget"):
        raise ValueError(f"coupled=True couples two gates, of which missing_gate={missing_gate!r} removes one")
    missing = {GATES[missing_gate]} if missing_gate is not None else set[str]()
    if coupled:
        missing.add("f")
    return "".join(name for name in "ifgo" if name not in missing)
