"""What a head is, and what all heads share: masked sums of losses."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from unrolled.heads.checks import check_mask, check_sizes
from unrolled.losses import Loss
from unrolled.shapes import ShapeError, expect


class Head(nn.Module, ABC):
    """Turns features into the parameters of a distribution over targets, and compares targets with it.

    A head of your own needs `losses` and `predict`, and `sharpen` and `sample` if its predictions are fed back. All
    methods take any leading axes: none, (batch,), (batch, time), …

    Attributes:
        target_size: entries of a target; None where a target is a single number, such as a class.

    Args:
        input_size: features of an input. Users of a head complete it: `partial(CategoricalHead, num_classes=5)`.
        output_size: parameters of one prediction.
        bias: whether the linear map from features to parameters has a bias.

    Raises:
        ValueError: a size below one.
    """

    target_size: int | None = None

    def __init__(self, input_size: int, output_size: int, *, bias: bool = True) -> None:
        super().__init__()
        check_sizes(input_size=input_size, output_size=output_size)
        self.input_size = input_size
        self.output_size = output_size
        self.linear = nn.Linear(input_size, output_size, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., input) -> parameters (..., outputs)."""
        expect(features, "... input", input=self.input_size, name="features")
        return self.linear(features)

    @abstractmethod
    def losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Parameters (..., outputs) and targets -> (...): the loss of each prediction, minus its log-probability.

        It is at least float32, whatever the parameters are.
        """

    def loss(self, parameters: Tensor, targets: Tensor, mask: Tensor | None = None) -> Loss:
        """The summed loss of the predictions that count, beside their number.

        What is masked may be anything, even NaN, and changes neither the sum nor a gradient.

        Args:
            parameters: (..., outputs).
            targets: (...), or (..., target_size).
            mask: (...) bool, true where a prediction counts; all of them by default.

        Raises:
            ShapeError: axes that don't belong together.
            ValueError: a mask that isn't bool.
        """
        self.check(parameters, targets)
        if mask is None:
            return summed(self.losses(parameters, targets), None)
        check_mask(mask, parameters.shape[:-1])
        hidden = (~mask).unsqueeze(-1)
        # Filled before anything is computed: NaN under a zero gradient would still give a NaN gradient.
        targets = targets.masked_fill(~mask if self.target_size is None else hidden, 0)
        return summed(self.losses(parameters.masked_fill(hidden, 0.0), targets).masked_fill(~mask, 0.0), mask)

    @abstractmethod
    def predict(self, parameters: Tensor) -> Tensor:
        """Parameters (..., outputs) -> the one target to expect: (...), or (..., target_size)."""

    def sharpen(self, parameters: Tensor, temperature: float) -> Tensor:
        """The parameters at a temperature: 1 leaves them, below 1 draws vary less, at 0 each is what `predict` gives.

        Raises:
            NotImplementedError: a head that isn't drawn from.
            ValueError: a temperature below 0, or one that isn't finite.
        """
        raise NotImplementedError(f"{type(self).__name__} has no temperature; predict(parameters) gives its answer")

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw for each prediction, with gradients for none: (...), or (..., target_size).

        Args:
            parameters: (..., outputs).
            generator: of the parameters' device; torch's own by default.

        Raises:
            NotImplementedError: a head that isn't drawn from.
        """
        raise NotImplementedError(f"{type(self).__name__} can't be drawn from; predict(parameters) gives its answer")

    def distribution(self, parameters: Tensor) -> Distribution:
        """The distribution as torch.distributions has it, with the leading axes as its batch, for users and tests.

        It checks no values. `losses` are faster than its `log_prob`, and `sample` takes a generator.

        Raises:
            NotImplementedError: a head whose loss belongs to no distribution of torch's.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no distribution of torch.distributions; it offers losses(parameters, targets)"
        )

    def check(self, parameters: Tensor, targets: Tensor) -> None:
        """Check the axes of both.

        Raises:
            ShapeError: axes that don't belong together.
        """
        expect(parameters, "... outputs", outputs=self.output_size, name="parameters")
        expect(targets, "...", name="targets")
        expected = (*parameters.shape[:-1], *(() if self.target_size is None else (self.target_size,)))
        if targets.shape != expected:
            raise ShapeError(f"targets has the shape {tuple(targets.shape)}, expected {expected}")

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.output_size}"


class VectorHead(Head):
    """A head whose target is a vector of `target_size` entries, each with a loss and as many parameters of its own.

    The parameters of an entry lie side by side. Entries may be missing one by one: a mask of the targets' shape.
    """

    target_size: int  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, never None

    @abstractmethod
    def entry_losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """(..., target_size): the loss of each entry."""

    def losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """(...): the loss of each prediction, the sum over its entries."""
        self.check(parameters, targets)
        return self.entry_losses(parameters, targets).sum(-1)

    def loss(self, parameters: Tensor, targets: Tensor, mask: Tensor | None = None) -> Loss:
        """The summed loss of the entries that count, beside the number of predictions with at least one of them.

        Args:
            parameters: (..., outputs).
            targets: (..., target_size).
            mask: bool, (...) or (..., target_size), true where a prediction or an entry counts; all by default.

        Raises:
            ShapeError: axes that don't belong together.
            ValueError: a mask that isn't bool.
        """
        self.check(parameters, targets)
        if mask is None:
            return Loss(self.entry_losses(parameters, targets).sum(), _number(parameters))
        entries = mask.dim() == targets.dim()
        check_mask(mask, targets.shape if entries else parameters.shape[:-1])
        hidden = ~mask if entries else (~mask).unsqueeze(-1)
        by_entry = parameters.unflatten(-1, (self.target_size, -1)).masked_fill(hidden.unsqueeze(-1), 0.0)
        losses = self.entry_losses(by_entry.flatten(-2), targets.masked_fill(hidden, 0)).masked_fill(hidden, 0.0)
        return Loss(losses.sum(), (mask.any(-1) if entries else mask).sum())


def summed(losses: Tensor, mask: Tensor | None) -> Loss:
    """Losses (...) that are 0 where they are masked, as a sum beside the number of predictions."""
    return Loss(losses.sum(), _number(losses.unsqueeze(-1)) if mask is None else mask.sum())


def _number(parameters: Tensor) -> Tensor:
    # Not torch.tensor: that would copy from the host, and the host would wait for it.
    return torch.full((), parameters.shape[:-1].numel(), dtype=torch.int64, device=parameters.device)
