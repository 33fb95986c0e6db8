r"""Gated recurrent unit with the reset gate before the recurrent product, as it was published.

    r_t = σ(W_r x_t + b_r + U_r h_{t-1} + c_r)
    z_t = σ(W_z x_t + b_z + U_z h_{t-1} + c_z)
    n_t = tanh(W_n x_t + b_n + U_n (r_t ⊙ h_{t-1}) + c_n)
    h_t = (1 − z_t) ⊙ n_t + z_t ⊙ h_{t-1}

Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder", eq. 5-8. It is what Keras calls
reset_after=False and ONNX linear_before_reset=0; `GRUCell` has the other order, which needs one product per step.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear

from unrolled.cells.base import AffineCell, RecurrentNoise
from unrolled.state import HiddenState


class ResetFirstGRUCell(AffineCell[HiddenState]):
    """One step of a gated recurrent unit that forgets before it multiplies.

    Parameters are named, ordered (r, z, n), shaped and drawn as `GRUCell`'s, but weights mean something else here.

    Args:
        input_size: features of an input.
        hidden_size: features of the state, and of the output.
        recurrent_dropout: probability of a unit of h_{t-1} to be dropped for a whole unroll, in both products.
        weight_drop: probability of an element of weight_hh to be dropped for a whole unroll.

    Raises:
        ValueError: a size below one, or a probability outside [0, 1).
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, recurrent_dropout: float = 0.0, weight_drop: float = 0.0
    ) -> None:
        super().__init__(input_size, hidden_size, gates=3, recurrent_dropout=recurrent_dropout, weight_drop=weight_drop)

    def initial_state(self, batch: int, *, like: Tensor) -> HiddenState:
        """Zeros (batch, hidden) on the device and in the dtype of `like`."""
        return HiddenState(like.new_zeros(batch, self.hidden_size))

    def step(
        self, projected: Tensor, state: HiddenState, noise: RecurrentNoise | None = None
    ) -> tuple[Tensor, HiddenState]:
        """(batch, 3 × hidden) and a state -> h_t (batch, hidden) as output and as state."""
        both = [2 * self.hidden_size, self.hidden_size]
        of_gates, of_candidate = projected.split(both, dim=-1)
        seen, weight = self.recurrent_factors(state.h, noise)
        (gates, candidate), (gates_bias, bias) = weight.split(both), self.bias_hh.split(both)
        r, z = torch.sigmoid(of_gates + linear(seen, gates, gates_bias)).chunk(2, dim=-1)
        n = torch.tanh(of_candidate + linear(r * seen, candidate, bias))
        h = n + z * (state.h - n)
        return h, HiddenState(h)
