r"""Long short-term memory whose gates depend on the gates of the previous step.

    i_t = σ(… + R_ii i_{t-1} + R_fi f_{t-1} + R_oi o_{t-1})
    f_t = σ(… + R_if i_{t-1} + R_ff f_{t-1} + R_of o_{t-1})
    o_t = σ(… + R_io i_{t-1} + R_fo f_{t-1} + R_oo o_{t-1})

where the dots stand for the terms of `PeepholeLSTMCell`, which also defines g_t, c_t and h_t. Full gate recurrence
(FGR) of Greff et al. 2017, "LSTM: A Search Space Odyssey", section 3; the form of Hochreiter & Schmidhuber 1997.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from unrolled.cells.gates import init_forget_bias
from unrolled.cells.pointwise import PointwiseCell


class FullGateState(NamedTuple):
    """h, c and the gates i, f, o of the previous step, (batch, hidden) each."""

    h: Tensor
    c: Tensor
    i: Tensor
    f: Tensor
    o: Tensor


class FullGateLSTMCell(PointwiseCell[FullGateState]):
    """One step of a long short-term memory with peepholes and full gate recurrence.

    Parameters are those of `PeepholeLSTMCell` and weight_gates (3 × hidden, 3 × hidden): nine blocks, with a row of
    blocks for each of i, f, o and a column for each of i_{t-1}, f_{t-1}, o_{t-1}.

    Args:
        input_size: number of input features.
        hidden_size: number of features of each tensor of the state and of the output.
        forget_bias: initial bias of the forget gate.
        recurrent_dropout: probability that a unit of h_{t-1}, i_{t-1}, f_{t-1} or o_{t-1} is dropped in the recurrent
            product for a whole unroll.
        weight_drop: probability that a recurrent weight is dropped for a whole unroll.

    Raises:
        ValueError: a size below one, or a probability outside [0, 1).
    """

    peephole_i: nn.Parameter
    peephole_f: nn.Parameter
    peephole_o: nn.Parameter

    gates = 4
    state_type = FullGateState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        forget_bias: float = 1.0,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size, recurrent_dropout=recurrent_dropout, weight_drop=weight_drop)
        self.forget_bias = forget_bias
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.weight_gates = nn.Parameter(torch.empty(3 * hidden_size, 3 * hidden_size))
        for gate in "ifo":
            self.register_parameter(f"peephole_{gate}", nn.Parameter(torch.empty(hidden_size)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters from U(−1/√hidden, 1/√hidden); set the forget gate's bias."""
        super().reset_parameters()
        init_forget_bias(self, self.forget_bias)

    def recurrent_inputs(self, state: FullGateState) -> tuple[Tensor, ...]:
        """Return h_{t-1}, i_{t-1}, f_{t-1}, o_{t-1}."""
        return state.h, state.i, state.f, state.o

    def recurrent_weight(self) -> Tensor:
        """Return weight_hh and weight_gates as one (4 × hidden, 4 × hidden); the gates don't enter the candidate g."""
        input_forget, output = self.weight_gates.split([2 * self.hidden_size, self.hidden_size])
        gates = torch.cat([input_forget, torch.zeros_like(output), output])
        return torch.cat([self.weight_hh, gates], dim=1)

    def pointwise(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: FullGateState
    ) -> tuple[Tensor, FullGateState]:
        """Compute h_t, which is the output, and the next state: h_t, c_t and the gates."""
        i, f, g, o = (one + other for one, other in zip(projected, recurrent, strict=True))
        i = self.tap("i", torch.sigmoid(i + self.peephole_i * state.c))
        f = self.tap("f", torch.sigmoid(f + self.peephole_f * state.c))
        c = f * state.c + i * self.tap("g", torch.tanh(g))
        o = self.tap("o", torch.sigmoid(o + self.peephole_o * c))
        h = o * torch.tanh(c)
        return h, FullGateState(h, c, i, f, o)
