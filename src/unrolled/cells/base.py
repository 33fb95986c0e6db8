"""Base classes: `Cell`, one step of a recurrent network, and `AffineCell`, with the parameter layout of torch.nn."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from unrolled.cells.observer import Observer
from unrolled.shapes import expect
from unrolled.state import check, outline

S = TypeVar("S")


class RecurrentNoise(NamedTuple):
    """Noise that is drawn once per unroll and stays the same for all steps.

    state_mask: (batch, blocks × hidden), multiplied with h_{t-1} before the recurrent product; None for no mask.
    weight_hh: the recurrent weights after weight drop; None for the cell's own weights.
    masks: (batch, hidden) each, further masks of a cell, such as one for its candidate.
    """

    state_mask: Tensor | None
    weight_hh: Tensor | None
    masks: tuple[Tensor, ...] = ()


class Cell(nn.Module, ABC, Generic[S]):
    """One step of a recurrent network.

    A subclass implements `initial_state`, `project` and `step`. `unroll` and `Recurrent` then run it over sequences, in
    either direction, with any number of layers, padded or not.

    Class attributes:
        counters: indices, in `leaves(state)`, of tensors that only count steps. They are neither learned as part of an
            initial state nor set from a summary of a source.
        observer: receives what the cell computes while it is recorded; None otherwise.

    Args:
        input_size: number of input features.
        hidden_size: number of hidden units.
        output_size: number of output features.

    Raises:
        ValueError: a size below one.
    """

    counters: ClassVar[tuple[int, ...]] = ()
    observer: Observer | None = None  # an attribute of the cell itself while it is recorded

    def __init__(self, input_size: int, hidden_size: int, *, output_size: int) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("output_size", output_size)):
            if size < 1:
                raise ValueError(f"{name} is {size}, expected 1 or more")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = output_size

    @abstractmethod
    def initial_state(self, batch: int, *, like: Tensor) -> S:
        """Return the state before the first step, with the device and the dtype of `like`."""

    @abstractmethod
    def project(self, inputs: Tensor) -> Tensor:
        """Compute the part of a step that needs no state, for all steps at once: (..., input) -> (..., any size)."""

    @abstractmethod
    def step(self, projected: Tensor, state: S, noise: Any = None) -> tuple[Tensor, S]:
        """Compute the output (batch, output) and the next state from a projected input (batch, ...) and a state."""

    def tap(self, name: str, value: Tensor) -> Tensor:
        """Show an intermediate value of a step to a recorder, if there is one, and return the value unchanged.

        `self.tap("i", torch.sigmoid(i))` records the input gate; see `unrolled.inspection`. A name is used once in a
        step. Without a recorder nothing happens, and traced and compiled programs don't contain the call.

        Args:
            name: the value's name, as in the paper: "i", "f", "o", "g", …
            value: (batch, …).
        """
        if self.observer is not None:
            self.observer.tapped(name, value)
        return value

    def observed_step(self, projected: Tensor, state: S, noise: Any = None) -> tuple[Tensor, S]:
        """Compute `step`, and show it to a recorder, if there is one."""
        if self.observer is not None:
            return self.observer.step(self, projected, state, noise)
        return self.step(projected, state, noise)

    def noise(self, batch: int, *, like: Tensor) -> Any:
        """Draw the noise of one unroll, which is passed to `step`; None for no noise, as in evaluation mode."""
        return None

    def forward(
        self,
        inputs: Tensor,
        state: S | None = None,
        *,
        through: Callable[[Tensor, Any], tuple[Tensor, Any]] | None = None,
    ) -> tuple[Tensor, S]:
        """Compute one step from inputs (batch, input), with new noise in training mode.

        Args:
            inputs: (batch, input).
            state: the state before the step; `initial_state` by default.
            through: a function that replaces the step, called with the inputs, of any shape, and the state. An unroll
                passes itself here if the cell has hooks, so that they run once, around all steps.

        Raises:
            ShapeError: inputs that are not (batch, input), or a state of other sizes.
            ValueError: a state of another structure, dtype or device than the cell's own.
        """
        if through is not None:
            return through(inputs, state)
        expect(inputs, "batch input", input=self.input_size, name="inputs")
        batch = inputs.shape[0]
        if state is None:
            state = self.initial_state(batch, like=inputs)
        else:
            check(state, outline(self.initial_state(1, like=inputs), like=inputs), like=inputs)
        return self.observed_step(self.project(inputs), state, self.noise(batch, like=inputs))

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"


class AffineCell(Cell[S]):
    """A cell whose gates are affine in the input and in h_{t-1}, with one matrix product for each per step.

    Parameters have the names, shapes and order of torch.nn's cells, so weights can be copied both ways: weight_ih
    (gates × hidden, input), weight_hh (gates × hidden, hidden), bias_ih and bias_hh (gates × hidden). All are drawn
    from U(−1/√hidden, 1/√hidden), as in torch.nn. Without a recurrent product, weight_hh and bias_hh are None.

    There are two kinds of noise, in training mode only and drawn once per unroll. Recurrent dropout multiplies h_{t-1}
    in the recurrent product by one mask for all steps and leaves the carried state unchanged (Gal & Ghahramani 2016, "A
    Theoretically Grounded Application of Dropout in Recurrent Neural Networks", eq. 7). Weight drop is dropout on
    weight_hh (Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models", section 2).

    Args:
        input_size: number of input features.
        hidden_size: number of features of a gate.
        gates: number of blocks of `hidden_size` rows in weight_ih and bias_ih.
        recurrent_gates: number of such blocks in weight_hh and bias_hh; `gates` by default.
        recurrent_blocks: number of tensors of the state that enter the recurrent product, concatenated.
        output_size: number of features of the output, and of each tensor that enters the recurrent product;
            `hidden_size` by default.
        recurrent_dropout: probability that a unit of h_{t-1} is dropped for a whole unroll.
        weight_drop: probability that an element of weight_hh is dropped for a whole unroll.

    Raises:
        ValueError: a size below one, a probability outside [0, 1), recurrent noise without a recurrent product.
    """

    weight_ih: nn.Parameter
    weight_hh: nn.Parameter
    bias_ih: nn.Parameter
    bias_hh: nn.Parameter

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        gates: int,
        recurrent_gates: int | None = None,
        recurrent_blocks: int = 1,
        output_size: int | None = None,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size, output_size=hidden_size if output_size is None else output_size)
        for name, probability in (("recurrent_dropout", recurrent_dropout), ("weight_drop", weight_drop)):
            if not 0.0 <= probability < 1.0:
                raise ValueError(f"{name} is {probability}, expected a probability in [0, 1)")
        self.recurrent_dropout = recurrent_dropout
        self.weight_drop = weight_drop
        rows = gates * hidden_size
        recurrent_rows = (gates if recurrent_gates is None else recurrent_gates) * hidden_size
        columns = recurrent_blocks * self.output_size
        self.has_recurrent_product = recurrent_rows * columns > 0
        if not self.has_recurrent_product and (recurrent_dropout > 0.0 or weight_drop > 0.0):
            noise = f"recurrent_dropout={recurrent_dropout} and weight_drop={weight_drop}"
            raise ValueError(f"{noise} have no recurrent product to act on in {type(self).__name__}; leave them at 0")
        shapes = {"weight_ih": (rows, input_size), "weight_hh": (recurrent_rows, columns)}
        shapes |= {"bias_ih": (rows,), "bias_hh": (recurrent_rows,)}
        for name, shape in shapes.items():
            exists = self.has_recurrent_product or not name.endswith("_hh")
            self.register_parameter(name, nn.Parameter(torch.empty(shape)) if exists else None)
        AffineCell.reset_parameters(self)  # not the subclass's method: its parameters don't exist yet

    def reset_parameters(self) -> None:
        """Draw all parameters from U(−1/√hidden, 1/√hidden), as torch.nn does."""
        bound = self.hidden_size**-0.5
        for parameter in self.parameters(recurse=False):
            nn.init.uniform_(parameter, -bound, bound)

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the input's contribution to the gates for all steps: (..., input) -> (..., gates × hidden)."""
        expect(inputs, "... input", input=self.input_size, name="inputs")
        return nn.functional.linear(inputs, self.weight_ih, self.bias_ih)

    def recurrent_weight(self) -> Tensor:
        """Return the matrix of the recurrent product: weight_hh, unless a subclass computes it."""
        return self.weight_hh

    def recur(self, h: Tensor, noise: RecurrentNoise | None) -> Tensor:
        """Compute the state's contribution to the gates: (batch, blocks × hidden) -> (batch, gates × hidden)."""
        return self.tap("recurrent", nn.functional.linear(*self.recurrent_factors(h, noise), self.bias_hh))

    def recurrent_factors(self, h: Tensor, noise: RecurrentNoise | None) -> tuple[Tensor, Tensor]:
        """Return the factors of the recurrent product, h_{t-1} and the weights, after their noise."""
        weight = None if noise is None else noise.weight_hh
        if noise is not None and noise.state_mask is not None:
            h = h * noise.state_mask
        return h, self.recurrent_weight() if weight is None else weight

    def noise(self, batch: int, *, like: Tensor) -> RecurrentNoise | None:
        """Draw the masks of one unroll, scaled to keep expectations; None without noise or in evaluation mode."""
        if not self.training or (self.recurrent_dropout == 0.0 and self.weight_drop == 0.0):
            return None
        dropout = nn.functional.dropout
        state_mask = dropped = None
        weight = self.recurrent_weight()
        if self.recurrent_dropout > 0.0:
            state_mask = dropout(like.new_ones(batch, weight.shape[1]), self.recurrent_dropout)
        if self.weight_drop > 0.0:
            dropped = dropout(weight, self.weight_drop)
        return RecurrentNoise(state_mask, dropped)

    def extra_repr(self) -> str:
        options = {"recurrent_dropout": self.recurrent_dropout, "weight_drop": self.weight_drop}
        return ", ".join([super().extra_repr(), *(f"{name}={value}" for name, value in options.items() if value)])
