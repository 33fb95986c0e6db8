"""Feed-forward layers with the interface of `Recurrent`: a baseline without memory."""

from typing import Any

from torch import Tensor, nn

from unrolled.layers.dropout import SequenceDropout
from unrolled.resets import Stretches
from unrolled.sequences import all_full, mask_from_lengths
from unrolled.shapes import expect

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "logistic": nn.Sigmoid,  # a synonym that papers use
    "softsign": nn.Softsign,
}


class FeedForward(nn.Module):
    """A multilayer perceptron that is applied to each step, as a replacement for `Recurrent`.

    It has the interface of `Recurrent`, with an empty state. The output of a step depends only on that step, so any
    advantage of a recurrent network over it comes from memory.

    Args:
        input_size: number of input features.
        hidden_size: number of units of each layer.
        num_layers: number of layers, each a linear map and the activation.
        activation: "relu", "tanh", "sigmoid" or "softsign".
        dropout: probability that an output is dropped before the next layer.
        variational_dropout: whether all steps of a sequence share one dropout mask.
        residual: whether a layer with equal input and output sizes adds its input to its output.
        bidirectional: accepted for compatibility with `Recurrent`; it has no effect.

    Raises:
        ValueError: a size or number below one, a probability outside [0, 1), an unknown activation.
    """

    bidirectional = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        activation: str = "relu",
        dropout: float = 0.0,
        variational_dropout: bool = False,
        residual: bool = False,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if size < 1:
                raise ValueError(f"{name} is {size}, expected 1 or more")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}, expected one of {', '.join(_ACTIVATIONS)}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.output_size = hidden_size
        self.residual = residual
        self.dropout = SequenceDropout(dropout, variational=variational_dropout)
        self.activation = _ACTIVATIONS[activation]()
        sizes = [input_size, *[hidden_size] * (num_layers - 1)]
        self.layers = nn.ModuleList(nn.Linear(size, hidden_size) for size in sizes)

    def initial_state(self, batch: int, *, like: Tensor) -> tuple[Any, ...]:
        """Return the empty state."""
        return ()

    def learnable_state(self) -> list[bool]:
        """Return an empty list: there is no state that could be learned."""
        return []

    def forward(
        self,
        inputs: Tensor,
        state: tuple[Any, ...] | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | Stretches | None = None,
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Return outputs (batch, time, hidden), zero in the padding, for (batch, time, input), and the empty state.

        `resets` have no effect, since steps don't depend on each other.

        Raises:
            ShapeError: inputs or lengths of the wrong shape.
            ValueError: lengths out of range, a state that is not empty.
        """
        expect(inputs, "batch time input", input=self.input_size, name="inputs")
        _check_state(state)
        batch, time = inputs.shape[:2]
        if lengths is None or all_full(lengths, batch, time):
            return self._layers(inputs), ()
        padding = ~mask_from_lengths(lengths.to(inputs.device), time).unsqueeze(-1)
        return self._layers(inputs.masked_fill(padding, 0.0)).masked_fill(padding, 0.0), ()

    def step(self, inputs: Tensor, state: tuple[Any, ...], noise: Any = None) -> tuple[Tensor, tuple[Any, ...]]:
        """Return the output (batch, hidden) for one step (batch, input), and the empty state."""
        expect(inputs, "batch input", input=self.input_size, name="inputs")
        _check_state(state)
        return self._layers(inputs.unsqueeze(1)).squeeze(1), ()

    def _layers(self, values: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            inputs = self.dropout(values) if number else values
            outputs = self.activation(layer(inputs))
            values = outputs + values if self.residual and outputs.shape == values.shape else outputs
        return values

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"


def _check_state(state: Any) -> None:
    if state is not None and state != ():
        raise ValueError("the state is not empty; the state of a feed-forward network is ()")
