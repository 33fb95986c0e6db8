r"""Multiplicative LSTM: the recurrent transition matrix depends on the input.

    m_t = (W_m x_t) ⊙ (U_m h_{t-1})
    (i, f, g, o) = W x_t + b + U m_t + d
    c_t = σ(f) ⊙ c_{t-1} + σ(i) ⊙ tanh(g)
    h_t = σ(o) ⊙ tanh(c_t)

Krause, Murray, Renals & Lu 2016, "Multiplicative LSTM for Sequence Modelling", section 3, with the output gate after
the tanh, as in Radford, Jozefowicz & Sutskever 2017, "Learning to Generate Reviews and Discovering Sentiment".
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from unrolled.cells.gates import init_forget_bias, update_cell
from unrolled.cells.pointwise import ChainedCell, Product
from unrolled.shapes import expect
from unrolled.state import LSTMState


class MultiplicativeLSTMCell(ChainedCell[LSTMState]):
    """One step of a multiplicative LSTM.

    Parameters have the names, order (i, f, g, o) and shapes of torch.nn.LSTMCell's, but weight_hh multiplies m. In
    addition, weight_mx (hidden, input) and weight_mh (hidden, hidden) compute m. All are drawn from U(−1/√hidden,
    1/√hidden), except the forget gate's bias.

    Args:
        input_size: number of input features.
        hidden_size: number of features of the state and of the output.
        forget_bias: initial bias of the forget gate.
        recurrent_dropout: probability that a unit of h_{t-1} is dropped in the product for m for a whole unroll.
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
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size, recurrent_dropout=recurrent_dropout, weight_drop=weight_drop)
        self.forget_bias = forget_bias
        self.weight_mx = nn.Parameter(torch.empty(hidden_size, input_size))
        self.weight_mh = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters from U(−1/√hidden, 1/√hidden); set the forget gate's bias."""
        super().reset_parameters()
        init_forget_bias(self, self.forget_bias)

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the input's contribution to the gates, and W_m x: (..., input) -> (..., 5 × hidden)."""
        expect(inputs, "... input", input=self.input_size, name="inputs")
        return torch.cat([linear(inputs, self.weight_ih, self.bias_ih), linear(inputs, self.weight_mx)], dim=-1)

    def products(self, weight_hh: Tensor) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """Return U_m, for h_{t-1}, and U, for m_t, with their biases."""
        return (self.weight_mh, None), (weight_hh, self.bias_hh)

    def chain(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: LSTMState, product: Product
    ) -> tuple[Tensor, LSTMState]:
        """Compute h_t, which is the output, and the next state."""
        *of_gates, of_m = projected
        of_state = product(1, self.tap("m", of_m * recurrent[0]))
        new = update_cell(self, [one + other for one, other in zip(of_gates, of_state, strict=True)], state.c)
        return new.h, new
