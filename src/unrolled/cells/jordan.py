r"""Jordan's recurrent network, whose output is fed back in place of its hidden units.

    h_t = f(W x_t + b + U s_t + d)
    y_t = g(V h_t + v)
    s_{t+1} = α s_t + y_t

Jordan 1986, "Attractor Dynamics and Parallelism in a Connectionist Sequential Machine", CogSci 8,
where f and g are the logistic function. s is the context and α its decay; with α = 0 s is the previous output.
"""

import torch
from torch import Tensor, nn

from unrolled.cells.activations import activation as named
from unrolled.cells.pointwise import ChainedCell, Product
from unrolled.state import HiddenState


class JordanCell(ChainedCell[HiddenState]):
    """One step of Jordan's network.

    Parameters have the names of torch.nn.RNNCell's, with weight_hh (hidden, output). In addition there are weight_ho
    (output, hidden) and bias_ho (output,). All are drawn from U(−1/√hidden, 1/√hidden). The state's h is the context s.

    Args:
        input_size: number of input features.
        hidden_size: number of hidden units.
        output_units: number of features of the output and of the context; `hidden_size` by default.
        memory: α, the fraction of the context that is kept at each step.
        activation: f, by name.
        output_activation: g, by name.
        recurrent_dropout: probability that a unit of the context is dropped for a whole unroll.
        weight_drop: probability that an element of weight_hh is dropped for a whole unroll.

    Raises:
        ValueError: a size below one, a memory or a probability outside [0, 1), an unknown activation.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        output_units: int | None = None,
        memory: float = 0.0,
        activation: str = "tanh",
        output_activation: str = "tanh",
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            output_size=output_units,
            recurrent_dropout=recurrent_dropout,
            weight_drop=weight_drop,
        )
        if not 0.0 <= memory < 1.0:
            raise ValueError(f"memory is {memory}, expected a fraction in [0, 1)")
        self.memory = memory
        self._activate = named(activation)
        self._output_activation = named(output_activation, "output_activation")
        self._options = f"memory={memory}, activation={activation}, output_activation={output_activation}"
        self.weight_ho = nn.Parameter(torch.empty(self.output_size, hidden_size))
        self.bias_ho = nn.Parameter(torch.empty(self.output_size))
        self.reset_parameters()

    def initial_state(self, batch: int, *, like: Tensor) -> HiddenState:
        """Return zeros (batch, output) with the device and the dtype of `like`."""
        return HiddenState(like.new_zeros(batch, self.output_size))

    def products(self, weight_hh: Tensor) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """Return U, for the context, and V, for the hidden units, with their biases."""
        return (weight_hh, self.bias_hh), (self.weight_ho, self.bias_ho)

    def chain(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: HiddenState, product: Product
    ) -> tuple[Tensor, HiddenState]:
        """Compute y_t, which is the output, and the next context."""
        h = self.tap("hidden", self._activate(projected[0] + recurrent[0]))
        written = product(1, h)
        y = self._output_activation(written[0] if len(written) == 1 else torch.cat(written, dim=-1))
        return y, HiddenState(y + self.memory * state.h if self.memory > 0.0 else y)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self._options}"
