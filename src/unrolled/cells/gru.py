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

    Parameters are named, ordered (r, z, n) and shaped as torch.nn.GRUCell's, so weights move both ways, and are drawn
    as there, from U(−1/√hidden, 1/√hidden).

    Args:
        input_size: features of an input.
        hidden_size: features of the state, and of the output.
        candidate_dropout: probability of an element of n_t to be dropped at a step.
        zoneout: probability of an element of h to keep its value at a step.
        recurrent_dropout: probability of a unit of h_{t-1} to be dropped for a whole unroll. The carried state, which
            z_t lets through, stays whole.
        weight_drop: probability of an element of weight_hh to be dropped for a whole unroll.

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
        """What the gates r, z, n take from the input and from h_{t-1} -> h_t as output and as state."""
        r = torch.sigmoid(projected[0] + recurrent[0])
        z = torch.sigmoid(projected[1] + recurrent[1])
        n = self.dropped(torch.tanh(projected[2] + r * recurrent[2]), projected)
        h = n + z * (state.h - n)  # (1 − z) n + z h with one product less
        new = self.apply_zoneout(HiddenState(h), state, projected)
        return new.h, new
