"""Base classes of heads, with masked sums of losses."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from unrolled.heads.checks import check_mask, check_sizes
from unrolled.losses import Loss
from unrolled.shapes import ShapeError, expect


class Head(nn.Module, ABC):
    """Base class of heads, which predict the parameters of a distribution over targets from features.

    A subclass implements `losses` and `predict`, and `sharpen` and `sample` if its predictions are fed back. What only
    some heads can do raises NotImplementedError in the others, as in torch.distributions. All methods support any
    leading axes: none, (batch,), (batch, time), …

    Attributes:
        target_size: number of entries of a target; None if a target is a single number, such as a class.

    Args:
        input_size: number of input features. Networks pass it to a partial: `partial(CategoricalHead, num_classes=5)`.
        output_size: number of parameters of one prediction.
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
        """Compute parameters (..., outputs) of features (..., input)."""
        expect(features, "... input", input=self.input_size, name="features")
        return self.linear(features)

    @abstractmethod
    def losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss (...) of each prediction, its negative log probability, from parameters (..., outputs).

        Its dtype is float32, or that of wider parameters.
        """

    def loss(self, parameters: Tensor, targets: Tensor, mask: Tensor | None = None) -> Loss:
        """Compute the sum of losses where the mask is true, and the number of these predictions.

        Masked values, even NaN, affect neither the sum nor a gradient.

        Args:
            parameters: (..., outputs).
            targets: (...), or (..., target_size).
            mask: (...) bool, true where a prediction counts; all of them by default.

        Raises:
            ShapeError: tensors whose shapes don't match.
            ValueError: a mask that isn't bool.
        """
        self.check(parameters, targets)
        if mask is None:
            return summed(self.losses(parameters, targets), None)
        check_mask(mask, parameters.shape[:-1])
        hidden = (~mask).unsqueeze(-1)
        # Values are masked before the loss: NaN with a zero gradient would still give a NaN gradient.
        targets = targets.masked_fill(~mask if self.target_size is None else hidden, 0)
        return summed(self.losses(parameters.masked_fill(hidden, 0.0), targets).masked_fill(~mask, 0.0), mask)

    @abstractmethod
    def predict(self, parameters: Tensor) -> Tensor:
        """Return the most probable or expected target, (...) or (..., target_size), of parameters (..., outputs)."""

    def sharpen(self, parameters: Tensor, temperature: float) -> Tensor:
        """Return parameters at a temperature: 1 for no change, less for less varied samples, 0 for that of `predict`.

        Raises:
            NotImplementedError: a head that can't be sampled.
            ValueError: a temperature below 0, or one that isn't finite.
        """
        raise NotImplementedError(f"{type(self).__name__} has no temperature; use predict(parameters)")

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a sample of each prediction, (...) or (..., target_size), without gradients.

        Args:
            parameters: (..., outputs).
            generator: random number generator on the parameters' device; torch's global generator by default.

        Raises:
            NotImplementedError: a head that can't be sampled.
        """
        raise NotImplementedError(f"{type(self).__name__} can't be sampled; use predict(parameters)")

    def distribution(self, parameters: Tensor) -> Distribution:
        """Return the predicted distribution as one of torch.distributions, with the leading axes as batch shape.

        It doesn't validate values. `losses` is faster than its `log_prob`, and `sample` accepts a generator.

        Raises:
            NotImplementedError: a head whose loss has no distribution in torch.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no distribution in torch.distributions; use losses(parameters, targets)"
        )

    def check(self, parameters: Tensor, targets: Tensor) -> None:
        """Check the shapes of parameters and targets.

        Raises:
            ShapeError: tensors whose shapes don't match.
        """
        expect(parameters, "... outputs", outputs=self.output_size, name="parameters")
        expect(targets, "...", name="targets")
        expected = (*parameters.shape[:-1], *(() if self.target_size is None else (self.target_size,)))
        if targets.shape != expected:
            raise ShapeError(f"targets has the shape {tuple(targets.shape)}, expected {expected}")

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.output_size}"


class VectorHead(Head):
    """Base class of heads whose target is a vector of `target_size` entries with separate losses and parameters.

    The parameters of an entry are adjacent. A mask with the shape of the targets marks missing entries.
    """

    target_size: int  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, never None

    @abstractmethod
    def entry_losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss (..., target_size) of each entry."""

    def quantiles_at(self, parameters: Tensor, levels: Sequence[float]) -> Tensor:
        """Return quantiles of each number, (..., target_size, levels), without gradients.

        Args:
            parameters: (..., outputs).
            levels: probabilities between 0 and 1.

        Raises:
            NotImplementedError: a head that predicts no distribution of numbers.
            ValueError: a level that it can't predict.
        """
        raise NotImplementedError(
            f"{type(self).__name__} predicts no quantiles; use predict(parameters), or a QuantileHead, a NormalHead or "
            "a StudentTHead"
        )

    def losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss (...) of each prediction, the sum over its entries."""
        self.check(parameters, targets)
        return self.entry_losses(parameters, targets).sum(-1)

    def loss(self, parameters: Tensor, targets: Tensor, mask: Tensor | None = None) -> Loss:
        """Compute the sum of losses where the mask is true, and the number of predictions with at least one such entry.

        Args:
            parameters: (..., outputs).
            targets: (..., target_size).
            mask: bool, (...) or (..., target_size), true where a prediction or an entry counts; all by default.

        Raises:
            ShapeError: tensors whose shapes don't match.
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
    """Return the sum of losses (...), which are 0 where masked, and the number of predictions."""
    return Loss(losses.sum(), _number(losses.unsqueeze(-1)) if mask is None else mask.sum())


def _number(parameters: Tensor) -> Tensor:
    # Not torch.tensor, which would copy from the host and synchronize.
    return torch.full((), parameters.shape[:-1].numel(), dtype=torch.int64, device=parameters.device)
