r"""Long short-term memory with peepholes, and seven of its eight variants.

    i_t = σ(W_i x_t + b_i + U_i h_{t-1} + d_i + p_i ⊙ c_{t-1})
    f_t = σ(W_f x_t + b_f + U_f h_{t-1} + d_f + p_f ⊙ c_{t-1})
    g_t = γ(W_g x_t + b_g + U_g h_{t-1} + d_g)
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    o_t = σ(W_o x_t + b_o + U_o h_{t-1} + d_o + p_o ⊙ c_t)
    h_t = o_t ⊙ η(c_t)

Gers & Schmidhuber 2000, "Recurrent Nets that Time and Count"; Graves & Schmidhuber 2005, "Framewise Phoneme
Classification with Bidirectional LSTM"; as in Graves 2013, "Generating Sequences With Recurrent Neural Networks", eq.
7-11. The variants are those of Greff et al. 2017, "LSTM: A Search Space Odyssey", section 3, whose picture of the block
this is: no input, forget or output gate (NIG, NFG, NOG: the gate is always 1), no input or output activation (NIAF,
NOAF: γ or η is the identity), coupled gates (CIFG: f_t = 1 − i_t), no peepholes (NP). The eighth, full gate recurrence,
is `FullGateLSTMCell`.
"""

import torch
from torch import Tensor, nn

from unrolled.cells.activations import activation
from unrolled.cells.noisy import NoisyCell
from unrolled.state import LSTMState

GATES = {"input": "i", "forget": "f", "output": "o"}


class PeepholeLSTMCell(NoisyCell[LSTMState]):
    """One step of a long short-term memory whose gates see the cell.

    Parameters are named, ordered (i, f, g, o, without the gates that it lacks) and shaped as torch.nn.LSTMCell's, with
    peephole_i, peephole_f and peephole_o (hidden,) besides. All are drawn from U(−1/√hidden, 1/√hidden), but for the
    forget gate's bias.

    Args:
        input_size: features of an input.
        hidden_size: features of the state, and of the output.
        peepholes: the gates see the cell.
        missing_gate: "input", "forget" or "output", which is then always open; None for all three gates.
        coupled: what the input gate lets in is what is forgotten; there is no forget gate of its own.
        gate_activation: σ, by name.
        input_activation: γ, by name: "tanh", "softsign", "identity", … (`unrolled.cells.activations`).
        output_activation: η, by name.
        forget_bias: the forget gate's bias at the start; coupled, the input gate's is its negative, which is the same.
        candidate_dropout: probability of an element of g_t to be dropped at a step.
        zoneout: probability of an element of h to keep its value at a step.
        zoneout_c: the same of c.
        recurrent_dropout: probability of a unit of h_{t-1} to be dropped for a whole unroll.
        weight_drop: probability of an element of weight_hh to be dropped for a whole unroll.

    Raises:
        ValueError: a size below one, a probability outside [0, 1), an unknown gate or activation, gates to be coupled
            of which one is missing.
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
        self._squash = activation(gate_activation, "gate_activation")
        self._read = activation(input_activation, "input_activation")
        self._write = activation(output_activation, "output_activation")
        self._described = f"{gate_activation}, {input_activation}, {output_activation}"
        for gate in GATES.values():
            seen = peepholes and gate in self.blocks
            self.register_parameter(f"peephole_{gate}", nn.Parameter(torch.empty(hidden_size)) if seen else None)
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
        """What the gates take from the input and from h_{t-1} -> h_t as output, h_t and c_t as state."""
        taken = {name: one + other for name, one, other in zip(self.blocks, projected, recurrent, strict=False)}
        i = self._open("i", taken, state.c)
        f = 1.0 - i if self.coupled else self._open("f", taken, state.c)
        g = self.dropped(self._read(taken["g"]), projected)
        c = f * state.c + i * g
        h = self._open("o", taken, c) * self._write(c)
        new = self.apply_zoneout(LSTMState(h, c), state, projected)
        return new.h, new

    def _open(self, gate: str, taken: dict[str, Tensor], c: Tensor) -> Tensor | float:
        """How far a gate is open; fully where it is missing."""
        if gate not in taken:
            return 1.0
        return self._squash(taken[gate] + getattr(self, f"peephole_{gate}") * c if self.peepholes else taken[gate])

    def extra_repr(self) -> str:
        own = f"gates={self.blocks}, coupled={self.coupled}, peepholes={self.peepholes}, activations={self._described}"
        return f"{super().extra_repr()}, {own}"


def _blocks(missing_gate: str | None, coupled: bool) -> str:
    """The gates that a cell has, in torch's order."""
    if missing_gate is not None and missing_gate not in GATES:
        raise ValueError(f"missing_gate is {missing_gate!r}, expected one of {', '.join(GATES)}, or None")
    if coupled and missing_gate in ("input", "forget"):
        raise ValueError(f"coupled=True couples two gates, of which missing_gate={missing_gate!r} takes one away")
    missing = {GATES[missing_gate]} if missing_gate is not None else set[str]()
    if coupled:
        missing.add("f")
    return "".join(name for name in "ifgo" if name not in missing)
