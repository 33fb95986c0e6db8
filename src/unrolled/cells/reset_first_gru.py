r"""Gated recurrent unit with the reset gate before the recurrent product, as originally published.

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
    """One step of a gated recurrent unit that applies the reset gate before the recurrent product.

    Parameters have the names, order (r, z, n), shapes and initialization of `GRUCell`'s. The weights of one can't be
    used in the other.

    Args:
        input_size: number of input features.
        hidden_size: number of features of the state and of the output.
        recurrent_dropout: probability that a unit of h_{t-1} is dropped for a whole unroll, in both products.
        weight_drop: probability that an element of weight_hh is dropped for a whole unroll.

    Raises:
        ValueError: a size below one, or a probability outside [0, 1).
    """

    gates = 3

    def noise(self, batch: int, *, like: Tensor) -> RecurrentNoise | None:
        """Draw the masks of one unroll; the mask of h_{t-1} is used for both products."""
        noise = super().noise(batch, like=like)
        if noise is None or noise.state_mask is None:
            return noise
        return noise._replace(masks=(noise.state_mask,))

    def products(self, weight_hh: Tensor) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """Return the weights (2 × hidden, hidden) for h_{t-1}, and (hidden, hidden) for r_t ⊙ h_{t-1}, with biases."""
        both = [2 * self.hidden_size, self.hidden_size]
        gates, candidate = zip(weight_hh.split(both), self.bias_hh.split(both), strict=True)
        return gates, candidate

    def chain(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: HiddenState, product: Product
    ) -> tuple[Tensor, HiddenState]:
        """Compute h_t, which is the output and the next state."""
        r = self.tap("r", torch.sigmoid(projected[0] + recurrent[0]))
        z = self.tap("z", torch.sigmoid(projected[1] + recurrent[1]))
        masked = state.h * recurrent[2] if len(recurrent) > 2 else state.h  # with recurrent dropout
        (of_state,) = product(1, r * masked)
        n = self.tap("n", torch.tanh(projected[2] + of_state))
        h = n + z * (state.h - n)
        return h, HiddenState(h)
