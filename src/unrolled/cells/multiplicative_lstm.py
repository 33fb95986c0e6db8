r"""Multiplicative LSTM: an input chooses by which matrix the state goes on.

    m_t = (W_m x_t) ⊙ (U_m h_{t-1})
    (i, f, g, o) = W x_t + b + U m_t + d
    c_t = σ(f) ⊙ c_{t-1} + σ(i) ⊙ tanh(g)
    h_t = σ(o) ⊙ tanh(c_t)

Krause, Murray, Renals & Lu 2016, "Multiplicative LSTM for Sequence Modelling", section 3, with the output gate behind
the tanh, as in Radford, Jozefowicz & Sutskever 2017, "Learning to Generate Reviews and Discovering Sentiment".
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from unrolled.cells.gates import init_forget_bias, remember
from unrolled.cells.pointwise import ChainedCell, Product
from unrolled.shapes import expect
from unrolled.state import LSTMState


class MultiplicativeLSTMCell(ChainedCell[LSTMState]):
    """One step of a multiplicative LSTM.

    Parameters are named, ordered (i, f, g, o) and shaped as torch.nn.LSTMCell's, but weight_hh multiplies m; besides,
    weight_mx (hidden, input) and weight_mh (hidden, hidden) make m. All are drawn from U(−1/√hidden, 1/√hidden), but
    for the forget gate's bias.

    Args:
        input_size: features of an input.
        hidden_size: features of the state, and of the output.
        forget_bias: the forget gate's bias at the start.
        recurrent_dropout: probability of a unit of h_{t-1} to be dropped for a whole unroll where it enters m.
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
        """(..., input) -> (..., 5 × hidden): what the gates take from the input, and W_m x."""
        expect(inputs, "... input", input=self.input_size, name="inputs")
        return torch.cat([linear(inputs, self.weight_ih, self.bias_ih), linear(inputs, self.weight_mx)], dim=-1)

    def products(self, weight_hh: Tensor) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """U_m on h_{t-1}, and U on m_t."""
        return (self.weight_mh, None), (weight_hh, self.bias_hh)

    def chain(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: LSTMState, product: Product
    ) -> tuple[Tensor, LSTMState]:
        """What i, f, g, o and m take from the input, and U_m h_{t-1} -> h_t as output, h_t and c_t as state."""
        *of_gates, of_m = projected
        of_state = product(1, of_m * recurrent[0])
        new = remember([one + other for one, other in zip(of_gates, of_state, strict=True)], state.c)
        return new.h, new
