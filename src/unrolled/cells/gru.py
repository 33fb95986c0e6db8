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

from unrolled.cells.base import AffineCell, RecurrentNoise
from unrolled.state import HiddenState


class GRUCell(AffineCell[HiddenState]):
    """One step of a gated recurrent unit.

    Parameters are named, ordered (r, z, n) and shaped as torch.nn.GRUCell's, so weights move both ways, and are drawn
    as there, from U(−1/√hidden, 1/√hidden).

    Args:
        input_size: features of an input.
        hidden_size: features of the state, and of the output.
        recurrent_dropout: probability of a unit of h_{t-1} to be dropped for a whole unroll. The carried state, which
            z_t lets through, stays whole.
        weight_drop: probability of an element of weight_hh to be dropped for a whole unroll.

    Raises:
        ValueError: a size below one, or a probability outside [0, 1).
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, recurrent_dropout: float = 0.0, weight_drop: float = 0.0
    ) -> None:
        super().__init__(input_size, hidden_size, gates=3, recurrent_dropout=recurrent_dropout, weight_drop=weight_drop)
        self.reset_parameters()

    def initial_state(self, batch: int, *, like: Tensor) -> HiddenState:
        """Zeros (batch, hidden) on the device and in the dtype of `like`."""
        return HiddenState(like.new_zeros(batch, self.hidden_size))

    def step(
        self, projected: Tensor, state: HiddenState, noise: RecurrentNoise | None = None
    ) -> tuple[Tensor, HiddenState]:
        """(batch, 3 × hidden) and h_{t-1} -> h_t as output and as state."""
        input_r, input_z, input_n = projected.chunk(3, dim=-1)
        hidden_r, hidden_z, hidden_n = self.recur(state.h, noise).chunk(3, dim=-1)
        r = torch.sigmoid(input_r + hidden_r)
        z = torch.sigmoid(input_z + hidden_z)
        n = torch.tanh(input_n + r * hidden_n)
        h = n + z * (state.h - n)  # (1 − z) n + z h with one product less
        return h, HiddenState(h)
