r"""Gated recurrent unit.

    r_t = σ(W_r x_t + b_r + U_r h_{t-1} + c_r)
    z_t = σ(W_z x_t + b_z + U_z h_{t-1} + c_z)
    n_t = tanh(W_n x_t + b_n + r_t ⊙ (U_n h_{t-1} + c_n))
    h_t = (1 − z_t) ⊙ n_t + z_t ⊙ h_{t-1}

Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder", eq. 5-8, with the reset gate after the
recurrent product, as torch.nn.GRU has it: one product per step instead of two.
"""

import torch
from torch import Tensor

from unrolled.cells.noisy import NoisyCell
from unrolled.state import HiddenState


class GRUCell(NoisyCell[HiddenState]):
    """One step of a gated recurrent unit.

    Parameters have the names, order (r, z, n) and shapes of torch.nn.GRUCell's, so weights can be copied both ways, and
    the same initialization, U(−1/√hidden, 1/√hidden).

    Args:
        input_size: number of input features.
        hidden_size: number of features of the state and of the output.
        candidate_dropout: probability that an element of n_t is dropped at a step.
        zoneout: probability that an element of h keeps its value at a step.
        recurrent_dropout: probability that a unit of h_{t-1} is dropped in the recurrent product for a whole unroll.
            The term z_t ⊙ h_{t-1} is not affected.
        weight_drop: probability that an element of weight_hh is dropped for a whole unroll.

    Raises:
        ValueError: a size below one, or a probability outside [0, 1).
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        candidate_dropout: float = 0.0,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            candidate_dropout=candidate_dropout,
            zoneout=(zoneout,),
            recurrent_dropout=recurrent_dropout,
            weight_drop=weight_drop,
        )

    def pointwise(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: HiddenState
    ) -> tuple[Tensor, HiddenState]:
        """Compute h_t, which is the output and the next state."""
        r = self.tap("r", torch.sigmoid(projected[0] + recurrent[0]))
        z = self.tap("z", torch.sigmoid(projected[1] + recurrent[1]))
        n = torch.tanh(projected[2] + r * recurrent[2])
        n = self.tap("n", self.apply_candidate_dropout(n, projected))
        h = n + z * (state.h - n)  # (1 − z) n + z h with one multiplication less
        new = self.apply_zoneout(HiddenState(h), state, projected)
        return new.h, new
