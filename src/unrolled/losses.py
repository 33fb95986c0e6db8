"""Masked losses as sums beside counts, so that a mean is one per prediction over ragged batches and over ranks."""

from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.shapes import expect

# No class has this index, so cross_entropy skips nothing: a negative target is an error, not a silent gap in the sum.
NO_TARGET = torch.iinfo(torch.int64).min


class Loss(NamedTuple):
    """A summed loss and the number of predictions in the sum, both scalars."""

    total: Tensor
    count: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  # tuple.count has no use here

    @property
    def mean(self) -> Tensor:
        """The loss per prediction; 0 where there was none to make."""
        return self.total / self.count.clamp(min=1)

    def merge(self, other: "Loss") -> "Loss":
        """The loss over the predictions of both."""
        return Loss(self.total + other.total, self.count + other.count)


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Loss:
    """Cross-entropy in nats, summed over the predictions that count.

    What stands where the mask is false never matters, neither to the sum nor to the gradient: any target, any logits.

    Args:
        logits: (batch, time, classes), not normalized.
        targets: (batch, time) int64.
        mask: (batch, time) bool, true where a prediction counts; all of them by default.
        label_smoothing: share of the target that is spread evenly over the classes (Szegedy et al. 2016, section 7).
        weights: (classes,) what a prediction of each class weighs in the sum; it counts as one all the same.

    Raises:
        ShapeError: axes that don't belong together.
    """
    expect(logits, "batch time classes", name="logits")
    batch, time, classes = logits.shape
    if weights is not None:
        expect(weights, "classes", classes=classes, name="weights")
    expect(targets, "batch time", batch=batch, time=time, name="targets")
    if mask is None:
        count = torch.tensor(targets.numel(), device=targets.device)
    else:
        expect(mask, "batch time", batch=batch, time=time, name="mask")
        count = mask.sum()
        # Not only the losses: a NaN logit under a zero gradient would still give a NaN gradient.
        logits = logits.masked_fill(~mask.unsqueeze(-1), 0.0)
        targets = targets.masked_fill(~mask, 0)
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1),
        targets.flatten(),
        weight=weights,
        ignore_index=NO_TARGET,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    if mask is not None:
        losses = losses.masked_fill(~mask.flatten(), 0.0)
    return Loss(losses.sum(), count)


def coverage_loss(weights: Tensor, mask: Tensor | None = None) -> Loss:
    """Σ_i min(a_ti, c_ti), c_t the sum of the weights before t: how much is looked at again.

    See et al. 2017, "Get To The Point", eq. 12, summed over the steps that count.

    Args:
        weights: (batch, time, source), of attention at each step.
        mask: (batch, time) bool, true where a step counts; all of them by default. Steps that don't count cover
            nothing either.

    Raises:
        ShapeError: axes that don't belong together.
    """
    expect(weights, "batch time source", name="weights")
    batch, time, _ = weights.shape
    if mask is None:
        count = torch.tensor(batch * time, device=weights.device)
    else:
        expect(mask, "batch time", batch=batch, time=time, name="mask")
        count = mask.sum()
        weights = weights.masked_fill(~mask.unsqueeze(-1), 0.0)
    covered = weights.cumsum(dim=1) - weights
    return Loss(torch.minimum(weights, covered).sum(), count)


def doubly_stochastic_loss(weights: Tensor, mask: Tensor | None = None) -> Loss:
    """Σ_i (1 − Σ_t a_ti)²: over a whole text, every place of the source is to be looked at about as much.

    Xu et al. 2015, "Show, Attend and Tell", eq. 14, summed over the texts; the count is that of the texts.

    Args:
        weights: (batch, time, source), of attention at each step.
        mask: (batch, time) bool, true where a step counts; all of them by default.

    Raises:
        ShapeError: axes that don't belong together.
    """
    expect(weights, "batch time source", name="weights")
    batch, time, _ = weights.shape
    if mask is not None:
        expect(mask, "batch time", batch=batch, time=time, name="mask")
        weights = weights.masked_fill(~mask.unsqueeze(-1), 0.0)
    return Loss((1.0 - weights.sum(dim=1)).square().sum(), torch.tensor(batch, device=weights.device))


def binary_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Loss:
    """Cross-entropy of independent yes-or-no answers in nats, summed over answers and counted by rows.

    Args:
        logits: (batch, answers), not normalized.
        targets: (batch, answers), the probability of a yes, from 0 to 1.
        weights: (answers,) what each answer weighs.

    Raises:
        ShapeError: axes that don't belong together.
    """
    _expect_alike(logits, targets)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, targets.to(logits), weight=weights, reduction="none"
    )
    return Loss(losses.sum(), torch.tensor(len(logits), device=logits.device))


def squared_error(outputs: Tensor, targets: Tensor) -> Loss:
    """Half the squared distance, summed over rows and counted by them.

    Args:
        outputs: (batch, numbers).
        targets: (batch, numbers).

    Raises:
        ShapeError: axes that don't belong together.
    """
    _expect_alike(outputs, targets)
    return Loss(0.5 * (outputs - targets.to(outputs)).square().sum(), torch.tensor(len(outputs), device=outputs.device))


def _expect_alike(outputs: Tensor, targets: Tensor) -> None:
    expect(outputs, "batch outputs", name="outputs")
    expect(targets, "batch outputs", batch=outputs.shape[0], outputs=outputs.shape[1], name="targets")
