r"""Long short-term memory with layer normalization.

    (i, f, g, o) = LN(W x_t; α₁, β₁) + LN(U h_{t-1}; α₂, β₂)
    c_t = σ(f) ⊙ c_{t-1} + σ(i) ⊙ tanh(g)
    h_t = σ(o) ⊙ tanh(LN(c_t; α₃, β₃))

    LN(z; α, β) = α ⊙ (z − mean(z)) / √(var(z) + ε) + β

Ba, Kiros & Hinton 2016, "Layer Normalization", supplementary material on the LSTM: one mean and one variance for
all four gates together. Its b is left out: it adds to the biases β₁ and β₂.
"""

import torch
from torch import Tensor, nn

from unrolled.cells.pointwise import PointwiseCell
from unrolled.shapes import expect
from unrolled.state import LSTMState


class LayerNormLSTMCell(PointwiseCell[LSTMState]):
    """One step of a layer-normalized long short-term memory.

    Parameters have the names, order (i, f, g, o) and shapes of torch.nn.LSTMCell's; bias_ih and bias_hh are β₁ and β₂.
    In addition, gain_ih and gain_hh (4 × hidden,) are α₁ and α₂, gain_c and bias_c (hidden,) are α₃ and β₃. Weights are
    drawn from U(−1/√hidden, 1/√hidden). Gains are initialized to 1, biases to 0, except the forget gate's.

    Args:
        input_size: number of input features.
        hidden_size: number of features of the state and of the output.
        forget_bias: initial bias of the forget gate.
        epsilon: ε, which avoids a division by a variance of zero.
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
        epsilon: float = 1e-5,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size, recurrent_dropout=recurrent_dropout, weight_drop=weight_drop)
        self.forget_bias = forget_bias
        self.epsilon = epsilon
        self.gain_ih = nn.Parameter(torch.empty(4 * hidden_size))
        self.gain_hh = nn.Parameter(torch.empty(4 * hidden_size))
        self.gain_c = nn.Parameter(torch.empty(hidden_size))
        self.bias_c = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights from U(−1/√hidden, 1/√hidden); set gains to 1, biases to 0, and the forget gate's bias."""
        super().reset_parameters()
        for name, parameter in self.named_parameters(recurse=False):
            if not name.startswith("weight"):
                nn.init.constant_(parameter, float(name.startswith("gain")))
        with torch.no_grad():
            self.bias_ih[self.hidden_size : 2 * self.hidden_size] = self.forget_bias

    def project(self, inputs: Tensor) -> Tensor:
        """Compute LN(W x) for all steps at once: (..., input) -> (..., 4 × hidden)."""
        expect(inputs, "... input", input=self.input_size, name="inputs")
        return self._normalized(nn.functional.linear(inputs, self.weight_ih), self.gain_ih, self.bias_ih)

    def products(self, weight_hh: Tensor) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """Return U, for h_{t-1}, without a bias, which is added after the normalization."""
        return ((weight_hh, None),)

    def pointwise(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: LSTMState
    ) -> tuple[Tensor, LSTMState]:
        """Compute h_t, which is the output, and the next state from LN(W x) and U h_{t-1}, in blocks for i, f, g, o."""
        of_state = self._normalized(torch.cat(recurrent, dim=-1), self.gain_hh, self.bias_hh)
        i, f, g, o = (one + other for one, other in zip(projected, of_state.chunk(4, dim=-1), strict=True))
        c = self.tap("f", torch.sigmoid(f)) * state.c
        c = c + self.tap("i", torch.sigmoid(i)) * self.tap("g", torch.tanh(g))
        h = self.tap("o", torch.sigmoid(o)) * torch.tanh(self._normalized(c, self.gain_c, self.bias_c))
        return h, LSTMState(h, c)

    def _normalized(self, values: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        return torch.addcmul(bias, gain, nn.functional.layer_norm(values, values.shape[-1:], eps=self.epsilon))
