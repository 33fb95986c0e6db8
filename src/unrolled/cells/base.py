"""What a recurrent cell is, and what the cells with torch's parameter layout share."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from unrolled.shapes import expect
from unrolled.state import check, outline

S = TypeVar("S")


class RecurrentNoise(NamedTuple):
    """Noise of one unroll, the same at each of its steps.

    state_mask: (batch, blocks × hidden), multiplies what enters the recurrent product, h_{t-1}; None for none.
    weight_hh: the recurrent weights with some of them dropped; None for the cell's own.
    masks: (batch, hidden) each: what a cell wants besides, such as a mask on its candidate.
    """

    state_mask: Tensor | None
    weight_hh: Tensor | None
    masks: tuple[Tensor, ...] = ()


class Cell(nn.Module, ABC, Generic[S]):
    """One step of a recurrent network.

    A new cell needs `initial_state`, `project` and `step`; `unroll` and `Recurrent` then run it over sequences, in
    either direction, in any depth, padded or not.

    Class attributes:
        counters: places among `leaves(state)` of what only counts steps: it is never learned, nor set from a summary.

    Args:
        input_size: features of an input.
        hidden_size: units of the state.
        output_size: features of an output.

    Raises:
        ValueError: a size below one.
    """

    counters: ClassVar[tuple[int, ...]] = ()

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
        """The state before the first step, on the device and in the dtype of `like`."""

    @abstractmethod
    def project(self, inputs: Tensor) -> Tensor:
        """(..., input) -> (..., anything): the share of a step that needs no state, for all steps at once."""

    @abstractmethod
    def step(self, projected: Tensor, state: S, noise: Any = None) -> tuple[Tensor, S]:
        """One step from a projected input (batch, ...): the output (batch, output) and the next state."""

    def noise(self, batch: int, *, like: Tensor) -> Any:
        """What `step` gets as noise, drawn once per unroll; None for none, as always in evaluation mode."""
        return None

    def forward(
        self,
        inputs: Tensor,
        state: S | None = None,
        *,
        through: Callable[[Tensor, Any], tuple[Tensor, Any]] | None = None,
    ) -> tuple[Tensor, S]:
        """One step from raw inputs (batch, input), with fresh noise in training mode.

        Args:
            inputs: (batch, input).
            state: before the step; `initial_state` by default.
            through: what runs instead, on inputs of any shape and a state. A pass through many steps calls a cell that
                has hooks with it, so that they run once, around all steps.

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
        return self.step(self.project(inputs), state, self.noise(batch, like=inputs))

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"


class AffineCell(Cell[S]):
    """A cell whose gates are affine in the input and in h_{t-1}: one product of each per step.

    Parameters are named, shaped and ordered as in torch.nn's cells, so weights move both ways: weight_ih (gates ×
    hidden, input), weight_hh (gates × hidden, hidden), bias_ih and bias_hh (gates × hidden). All are drawn from
    U(−1/√hidden, 1/√hidden), as there. Where nothing of the state enters a product, weight_hh and bias_hh are None.

    Two kinds of noise, in training mode only and drawn once per unroll: recurrent dropout puts one mask, the same at
    all steps, on h_{t-1} where it enters the product, while the carried state stays whole (Gal & Ghahramani 2016, "A
    Theoretically Grounded Application of Dropout in Recurrent Neural Networks", eq. 7); weight drop is dropout on
    weight_hh (Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models", section 2).

    Args:
        input_size: features of an input.
        hidden_size: features of a gate.
        gates: blocks of `hidden_size` rows in weight_ih and bias_ih.
        recurrent_gates: the same of weight_hh and bias_hh; as many as gates by default.
        recurrent_blocks: tensors of the state that enter the recurrent product, side by side.
        output_size: features of the output, and of each tensor that enters the recurrent product; hidden_size by
            default.
        recurrent_dropout: probability of a unit of h_{t-1} to be dropped for a whole unroll.
        weight_drop: probability of an element of weight_hh to be dropped for a whole unroll.

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
        AffineCell.reset_parameters(self)  # not a subclass's, whose own parameters don't exist yet

    def reset_parameters(self) -> None:
        """Draw all parameters from U(−1/√hidden, 1/√hidden), as torch.nn does."""
        bound = self.hidden_size**-0.5
        for parameter in self.parameters(recurse=False):
            nn.init.uniform_(parameter, -bound, bound)

    def project(self, inputs: Tensor) -> Tensor:
        """(..., input) -> (..., gates × hidden): what the gates take from the input, for all steps at once."""
        expect(inputs, "... input", input=self.input_size, name="inputs")
        return nn.functional.linear(inputs, self.weight_ih, self.bias_ih)

    def recurrent_weight(self) -> Tensor:
        """What the recurrent product takes: weight_hh, unless a cell makes it of more than that."""
        return self.weight_hh

    def recur(self, h: Tensor, noise: RecurrentNoise | None) -> Tensor:
        """(batch, blocks × hidden) -> (batch, gates × hidden): what the gates take from the state."""
        return nn.functional.linear(*self.recurrent_factors(h, noise), self.bias_hh)

    def recurrent_factors(self, h: Tensor, noise: RecurrentNoise | None) -> tuple[Tensor, Tensor]:
        """What enters the recurrent product, h_{t-1} and the weights, with noise on both."""
        weight = None if noise is None else noise.weight_hh
        if noise is not None and noise.state_mask is not None:
            h = h * noise.state_mask
        return h, self.recurrent_weight() if weight is None else weight

    def noise(self, batch: int, *, like: Tensor) -> RecurrentNoise | None:
        """The masks of one unroll, scaled so that expectations stay; None without noise or in evaluation mode."""
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
