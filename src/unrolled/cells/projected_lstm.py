r"""Long short-term memory with a recurrent projection.

    (i, f, g, o) = W x_t + b + U r_{t-1} + d
    c_t = σ(f) ⊙ c_{t-1} + σ(i) ⊙ tanh(g)
    r_t = P (σ(o) ⊙ tanh(c_t))

Sak, Senior & Beaufays 2014, "Long Short-Term Memory Recurrent Neural Network Architectures for Large Scale Acoustic
Modeling", eq. 7-14, without the peepholes and the non-recurrent projection, as in torch.nn.LSTM with proj_size.
"""

import torch
from torch import Tensor, nn

from unrolled.cells.base import AffineCell, RecurrentNoise
from unrolled.cells.gates import init_forget_bias, update_cell
from unrolled.state import LSTMState


class ProjectedLSTMCell(AffineCell[LSTMState]):
    """One step of a long short-term memory whose output and recurrent input are a projection of its units.

    Parameters have the names, order (i, f, g, o) and shapes of torch.nn.LSTM's with proj_size: weight_hh is (4 ×
    hidden, projection), weight_hr (projection, hidden).

    Args:
        input_size: number of input features.
        hidden_size: number of units of the cell, the features of c.
        projection_size: number of features of the output and of h; half of hidden_size by default.
        forget_bias: initial bias of the forget gate.
        recurrent_dropout: probability that a feature of r_{t-1} is dropped for a whole unroll.
        weight_drop: probability that an element of weight_hh is dropped for a whole unroll.

    Raises:
        ValueError: a size below one, a projection that is not smaller than hidden_size, a probability outside [0, 1).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        projection_size: int | None = None,
        forget_bias: float = 1.0,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        size = (hidden_size + 1) // 2 if projection_size is None else projection_size
        if projection_size is not None and not 1 <= projection_size < hidden_size:
            raise ValueError(f"projection_size is {projection_size}, expected 1 to {hidden_size - 1}")
        super().__init__(
            input_size,
            hidden_size,
            gates=4,
            output_size=size,
            recurrent_dropout=recurrent_dropout,
            weight_drop=weight_drop,
        )
        self.projection_size = size
        self.forget_bias = forget_bias
        self.weight_hr = nn.Parameter(torch.empty(size, hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters from U(−1/√hidden, 1/√hidden); set the forget gate's bias."""
        super().reset_parameters()
        init_forget_bias(self, self.forget_bias)

    def initial_state(self, batch: int, *, like: Tensor) -> LSTMState:
        """Return zeros: h (batch, projection) and c (batch, hidden), with the device and the dtype of `like`."""
        return LSTMState(like.new_zeros(batch, self.projection_size), like.new_zeros(batch, self.hidden_size))

    def step(
        self, projected: Tensor, state: LSTMState, noise: RecurrentNoise | None = None
    ) -> tuple[Tensor, LSTMState]:
        """Compute r_t (batch, projection), which is the output, and the next state from (batch, 4 × hidden)."""
        gates = (projected + self.recur(state.h, noise)).chunk(4, dim=-1)
        new = update_cell(self, gates, state.c)
        r = nn.functional.linear(new.h, self.weight_hr)
        return r, LSTMState(r, new.c)
