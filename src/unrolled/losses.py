"""Masked losses as sums and counts, so that means over ragged batches and over ranks weigh each prediction equally."""

from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.shapes import expect

# No class has this index, so cross_entropy ignores no target: a negative target is an error and is not skipped.
NO_TARGET = torch.iinfo(torch.int64).min


class Loss(NamedTuple):
    """A summed loss and the number of predictions in the sum, both scalars."""

    total: Tensor
    count: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  # tuple.count has no use here

    @property
    def mean(self) -> Tensor:
        """The loss per prediction; 0 if there is no prediction."""
        return self.total / self.count.clamp(min=1)

    def merge(self, other: "Loss") -> "Loss":
        """Return the loss over the predictions of both."""
        return Loss(self.total + other.total, self.count + other.count)


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Loss:
    """Compute the cross-entropy in nats, summed over the predictions where the mask is true.

    Logits and targets where the mask is false affect neither the sum nor the gradient, whatever their values.

    Args:
        logits: (batch, time, classes), not normalized.
        targets: (batch, time) int64.
        mask: (batch, time) bool, true where a prediction counts; all of them by default.
        label_smoothing: fraction of the target that is spread evenly over the classes (Szegedy et al. 2016, section 7).
        weights: (classes,) weight of each class in the sum. The count is not weighted.

    Raises:
        ShapeError: tensors whose shapes don't match.
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
        # Masking the losses is not enough: a NaN logit with a zero gradient would still give a NaN gradient.
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
    """Compute the coverage loss Σ_i min(a_ti, c_ti), where c_t is the sum of the attention weights before step t.

    It penalizes repeated attention to the same position. See et al. 2017, "Get To The Point", eq. 12, summed over the
    steps where the mask is true.

    Args:
        weights: (batch, time, source), the attention weights of each step.
        mask: (batch, time) bool, true where a step counts; all of them by default. Other steps don't add to c_t.

    Raises:
        ShapeError: tensors whose shapes don't match.
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
    """Compute the doubly stochastic attention penalty Σ_i (1 − Σ_t a_ti)².

    It makes the decoder attend to every source position equally over a whole sequence. Xu et al. 2015, "Show, Attend
    and Tell", eq. 14, summed over the sequences; the count is the number of sequences.

    Args:
        weights: (batch, time, source), the attention weights of each step.
        mask: (batch, time) bool, true where a step counts; all of them by default.

    Raises:
        ShapeError: tensors whose shapes don't match.
    """
    expect(weights, "batch time source", name="weights")
    batch, time, _ = weights.shape
    if mask is not None:
        expect(mask, "batch time", batch=batch, time=time, name="mask")
        weights = weights.masked_fill(~mask.unsqueeze(-1), 0.0)
    return Loss((1.0 - weights.sum(dim=1)).square().sum(), torch.tensor(batch, device=weights.device))


def binary_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Loss:
    """Compute the binary cross-entropy in nats of independent labels, summed over labels. The count is that of rows.

    Args:
        logits: (batch, labels), not normalized.
        targets: (batch, labels), probabilities from 0 to 1.
        weights: (labels,) weight of each label.

    Raises:
        ShapeError: tensors whose shapes don't match.
    """
    _expect_alike(logits, targets)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, targets.to(logits), weight=weights, reduction="none"
    )
    return Loss(losses.sum(), torch.tensor(len(logits), device=logits.device))


def squared_error(outputs: Tensor, targets: Tensor) -> Loss:
    """Compute half the squared distance, summed over rows. The count is the number of rows.

    Args:
        outputs: (batch, numbers).
        targets: (batch, numbers).

    Raises:
        ShapeError: tensors whose shapes don't match.
    """
    _expect_alike(outputs, targets)
    return Loss(0.5 * (outputs - targets.to(outputs)).square().sum(), torch.tensor(len(outputs), device=outputs.device))


def _expect_alike(outputs: Tensor, targets: Tensor) -> None:
    expect(outputs, "batch outputs", name="outputs")
    expect(targets, "batch outputs", batch=outputs.shape[0], outputs=outputs.shape[1], name="targets")
