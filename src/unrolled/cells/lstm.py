r"""Long short-term memory.

    i_t = σ(W_i x_t + b_i + U_i h_{t-1} + d_i)
    f_t = σ(W_f x_t + b_f + U_f h_{t-1} + d_f)
    g_t = tanh(W_g x_t + b_g + U_g h_{t-1} + d_g)
    o_t = σ(W_o x_t + b_o + U_o h_{t-1} + d_o)
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    h_t = o_t ⊙ tanh(c_t)

Hochreiter & Schmidhuber 1997, "Long Short-Term Memory", with the forget gate of Gers et al. 2000, "Learning to Forget",
and no peepholes, as torch.nn.LSTM has it.
"""

import torch
from torch import Tensor

from unrolled.cells.gates import init_forget_bias
from unrolled.cells.noisy import NoisyCell
from unrolled.state import LSTMState


class LSTMCell(NoisyCell[LSTMState]):
    """One step of a long short-term memory.

    Parameters are named, ordered (i, f, g, o) and shaped as torch.nn.LSTMCell's, so weights move both ways. They are
    drawn as there, from U(−1/√hidden, 1/√hidden), but for the bias of the forget gate: torch adds two biases, and the
    one that is asked for counts once, as bias_ih, beside a zero in bias_hh.

    Args:
        input_size: features of an input.
        hidden_size: features of the state, and of the output.
        forget_bias: the forget gate's bias at the start. 1 lets the cell remember from the first step on (Jozefowicz et
            al. 2015, "An Empirical Exploration of Recurrent Network Architectures", section 2.2).
        candidate_dropout: probability of an element of g_t to be dropped at a step.
        zoneout: probability of an element of h to keep its value at a step.
        zoneout_c: the same of c.
        recurrent_dropout: probability of a unit of h_{t-1} to be dropped for a whole unroll.
        weight_drop: probability of an element of weight_hh to be dropped for a whole unroll.

    Raises:
        ValueError: a size below one, or a probability outside [0, 1).
    """

    gates = 4
    state_type = LSTMState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        forget_bias: float = 1.0,
        candidate_dropout: float = 0.0,
        zoneout: float = 0.0,
        zoneout_c: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            candidate_dropout=candidate_dropout,
            zoneout=(zoneout, zoneout_c),
            recurrent_dropout=recurrent_dropout,
            weight_drop=weight_drop,
        )
        self.forget_bias = forget_bias
        init_forget_bias(self, self.forget_bias)

    def reset_parameters(self) -> None:
        """Draw all parameters from U(−1/√hidden, 1/√hidden); set the forget gate's bias."""
        super().reset_parameters()
        init_forget_bias(self, self.forget_bias)

    def pointwise(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: LSTMState
    ) -> tuple[Tensor, LSTMState]:
        """What the gates i, f, g, o take from the input and from h_{t-1} -> h_t as output, h_t and c_t as state."""
        i, f, g, o = (one + other for one, other in zip(projected, recurrent, strict=False))  # masks may stand behind
        g = self.dropped(torch.tanh(g), projected)
        c = torch.sigmoid(f) * state.c + torch.sigmoid(i) * g
        h = torch.sigmoid(o) * torch.tanh(c)
        new = self.apply_zoneout(LSTMState(h, c), state, projected)
        return new.h, new
