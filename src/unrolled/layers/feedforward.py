"""Layers without memory: what a recurrent net has to beat on the same batches."""

from typing import Any

from torch import Tensor, nn

from unrolled.layers.dropout import SequenceDropout
from unrolled.sequences import all_full, mask_from_lengths
from unrolled.shapes import expect

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "logistic": nn.Sigmoid,  # as some papers call it
    "softsign": nn.Softsign,
}


class FeedForward(nn.Module):
    """Each step by itself through a multilayer perceptron, in the place of a `Recurrent`.

    It is called as a `Recurrent` is and has the same state, an empty one. What it says about a step depends on that
    step alone, so whatever a recurrent net gains over it comes from memory.

    Args:
        input_size: features of an input.
        hidden_size: units of each layer.
        num_layers: layers, each a product, a bias and the activation.
        activation: "relu", "tanh", "sigmoid" or "softsign".
        dropout: probability of an output to be dropped on its way to the next layer.
        variational_dropout: drop the same features at all steps of a pass.
        residual: a layer whose input and output have equal sizes adds its input to its output.
        bidirectional: taken as from every encoder, and without effect: a step that is read alone has no direction.

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
            raise ValueError(f"activation={activation!r} is one of {', '.join(_ACTIVATIONS)}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.output_size = hidden_size
        self.residual = residual
        self.dropout = SequenceDropout(dropout, variational=variational_dropout)
        self.activation = _ACTIVATIONS[activation]()
        sizes = [input_size, *[hidden_size] * (num_layers - 1)]
        self.layers = nn.ModuleList(nn.Linear(size, hidden_size) for size in sizes)

    def initial_state(self, batch: int, *, like: Tensor) -> tuple[Any, ...]:
        """Nothing is remembered."""
        return ()

    def learnable_state(self) -> list[bool]:
        """Nothing is remembered, so there is nothing to begin with."""
        return []

    def forward(
        self, inputs: Tensor, state: tuple[Any, ...] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """(batch, time, input) -> (batch, time, hidden), zero behind each sequence's end, and the empty state.

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
        """(batch, input) -> (batch, hidden)."""
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
        raise ValueError("the state holds something, and a network without memory has an empty one: ()")
