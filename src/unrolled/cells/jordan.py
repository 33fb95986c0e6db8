r"""Jordan's recurrent network, which feeds its output back rather than its hidden units.

    h_t = f(W x_t + b + U s_t + d)
    y_t = g(V h_t + v)
    s_{t+1} = α s_t + y_t

Jordan 1986, "Attractor Dynamics and Parallelism in a Connectionist Sequential Machine", CogSci 8; there with the
logistic function as f and g. s is the context, α its memory of itself; with α = 0 it is the last output.
"""

import torch
from torch import Tensor, nn

from unrolled.cells.activations import activation as named
from unrolled.cells.pointwise import ChainedCell, Product
from unrolled.state import HiddenState


class JordanCell(ChainedCell[HiddenState]):
    """One step of Jordan's network.

    Parameters are named as torch.nn.RNNCell's, with weight_hh (hidden, output), and weight_ho (output, hidden) and
    bias_ho (output,) besides. All are drawn from U(−1/√hidden, 1/√hidden). The state's h is the context s.

    Args:
        input_size: features of an input.
        hidden_size: hidden units.
        output_units: features of the output and of the context; as many as hidden units by default.
        memory: α, the share of itself that the context keeps at a step.
        activation: f, by name.
        output_activation: g, by name.
        recurrent_dropout: probability of a unit of the context to be dropped for a whole unroll.
        weight_drop: probability of an element of weight_hh to be dropped for a whole unroll.

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
            raise ValueError(f"memory is {memory}, expected a share in [0, 1)")
        self.memory = memory
        self._activate = named(activation)
        self._write = named(output_activation, "output_activation")
        self._described = f"memory={memory}, activation={activation}, output_activation={output_activation}"
        self.weight_ho = nn.Parameter(torch.empty(self.output_size, hidden_size))
        self.bias_ho = nn.Parameter(torch.empty(self.output_size))
        self.reset_parameters()

    def initial_state(self, batch: int, *, like: Tensor) -> HiddenState:
        """Zeros (batch, output) on the device and in the dtype of `like`."""
        return HiddenState(like.new_zeros(batch, self.output_size))

    def products(self, weight_hh: Tensor) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """U on the context, and V on the hidden units."""
        return (weight_hh, self.bias_hh), (self.weight_ho, self.bias_ho)

    def chain(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: HiddenState, product: Product
    ) -> tuple[Tensor, HiddenState]:
        """What the hidden units take from the input and from the context -> y_t as output, and the next context."""
        h = self._activate(projected[0] + recurrent[0])
        written = product(1, h)
        y = self._write(written[0] if len(written) == 1 else torch.cat(written, dim=-1))
        return y, HiddenState(y + self.memory * state.h if self.memory > 0.0 else y)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self._described}"
