r"""Long short-term memory.

    i_t = σ(W_i x_t + b_i + U_i h_{t-1} + d_i)
    f_t = σ(W_f x_t + b_f + U_f h_{t-1} + d_f)
    g_t = tanh(W_g x_t + b_g + U_g h_{t-1} + d_g)
    o_t = σ(W_o x_t + b_o + U_o h_{t-1} + d_o)
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    h_t = o_t ⊙ tanh(c_t)

Hochreiter & Schmidhuber 1997, "Long Short-Term Memory", with the forget gate of Gers et al. 2000, "Learning to Forget",
and without peepholes, as in torch.nn.LSTM.
"""

import torch
from torch import Tensor

from unrolled.cells.gates import init_forget_bias
from unrolled.cells.noisy import NoisyCell
from unrolled.state import LSTMState


class LSTMCell(NoisyCell[LSTMState]):
    """One step of a long short-term memory.

    Parameters have the names, order (i, f, g, o) and shapes of torch.nn.LSTMCell's, so weights can be copied both ways.
    They have the same initialization, U(−1/√hidden, 1/√hidden), except the bias of the forget gate: bias_ih is set to
    `forget_bias` and bias_hh to zero, since the two are added.

    Args:
        input_size: number of input features.
        hidden_size: number of features of the state and of the output.
        forget_bias: initial bias of the forget gate. With 1 the cell keeps information from the beginning of training
            (Jozefowicz et al. 2015, "An Empirical Exploration of Recurrent Network Architectures", section 2.2).
        candidate_dropout: probability that an element of g_t is dropped at a step.
        zoneout: probability that an element of h keeps its value at a step.
        zoneout_c: the same for c.
        recurrent_dropout: probability that a unit of h_{t-1} is dropped for a whole unroll.
        weight_drop: probability that an element of weight_hh is dropped for a whole unroll.

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
        """Compute h_t, which is the output, and the next state."""
        i, f, g, o = (one + other for one, other in zip(projected, recurrent, strict=False))  # masks may follow
        g = self.tap("g", self.apply_candidate_dropout(torch.tanh(g), projected))
        c = self.tap("f", torch.sigmoid(f)) * state.c + self.tap("i", torch.sigmoid(i)) * g
        h = self.tap("o", torch.sigmoid(o)) * torch.tanh(c)
        new = self.apply_zoneout(LSTMState(h, c), state, projected)
        return new.h, new
