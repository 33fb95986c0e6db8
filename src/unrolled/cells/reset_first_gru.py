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

from unrolled.cells.base import RecurrentNoise
from unrolled.cells.pointwise import ChainedCell, Product
from unrolled.state import HiddenState


class ResetFirstGRUCell(ChainedCell[HiddenState]):
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

    gates = 3

    def noise(self, batch: int, *, like: Tensor) -> RecurrentNoise | None:
        """The masks of one unroll; the one on h_{t-1} is there for the second product too."""
        noise = super().noise(batch, like=like)
        if noise is None or noise.state_mask is None:
            return noise
        return noise._replace(masks=(noise.state_mask,))

    def products(self, weight_hh: Tensor) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """(2 × hidden, hidden) of the gates, on h_{t-1}, and (hidden, hidden) of the candidate, on r_t ⊙ h_{t-1}."""
        both = [2 * self.hidden_size, self.hidden_size]
        gates, candidate = zip(weight_hh.split(both), self.bias_hh.split(both), strict=True)
        return gates, candidate

    def chain(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: HiddenState, product: Product
    ) -> tuple[Tensor, HiddenState]:
        """What r, z, n take from the input, r and z from h_{t-1} -> h_t as output and as state."""
        r = torch.sigmoid(projected[0] + recurrent[0])
        z = torch.sigmoid(projected[1] + recurrent[1])
        seen = state.h * recurrent[2] if len(recurrent) > 2 else state.h  # a mask, where units are dropped
        (of_state,) = product(1, r * seen)
        n = torch.tanh(projected[2] + of_state)
        h = n + z * (state.h - n)
        return h, HiddenState(h)
