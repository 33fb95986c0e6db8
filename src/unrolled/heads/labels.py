"""Multi-label classification."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent
from torch.nn.functional import binary_cross_entropy_with_logits

from unrolled.heads.base import VectorHead
from unrolled.heads.checks import check_shares, check_sizes, checked_smoothing, checked_weights
from unrolled.heads.temperature import sharpened_signs, widened


class LabelsHead(VectorHead):
    """Predicts the presence of several labels, such as notes that sound: independent Bernoulli distributions.

    Parameters are logits (..., num_labels). A target (..., num_labels) is the probability of each label, often 0 or 1.
    The loss of a prediction is the sum over its labels, in nats. Label smoothing and class weights are used in training
    mode only.

    Args:
        input_size: number of input features.
        num_labels: number of entries of a target.
        bias: whether logits have a bias.
        label_smoothing: fraction of each target that is replaced by ½.
        class_weights: weight of each label in the sum. The buffer with this name can be set later, when the data are
            known; it is not stored in checkpoints.

    Raises:
        ValueError: a size below one; a share outside [0, 1); weights that are negative, infinite or not one per label.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        input_size: int,
        num_labels: int,
        *,
        bias: bool = True,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        check_sizes(num_labels=num_labels)
        super().__init__(input_size, num_labels, bias=bias)
        self.num_labels = self.target_size = num_labels
        self.label_smoothing = checked_smoothing(label_smoothing)
        weights = checked_weights(class_weights, num_labels)
        self.register_buffer("class_weights", weights, persistent=False)

    def entry_losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Compute the cross-entropy (..., num_labels) of each label in nats.

        Raises:
            ValueError: targets outside [0, 1]; checked only on the CPU.
        """
        logits = widened(parameters)
        targets = targets.to(logits.dtype)
        check_shares(targets)
        weights = self.class_weights if self.training else None
        if self.training and self.label_smoothing:
            targets = targets * (1 - self.label_smoothing) + 0.5 * self.label_smoothing
        return binary_cross_entropy_with_logits(
            logits, targets, weight=None if weights is None else weights.to(logits.dtype), reduction="none"
        )

    def probabilities(self, parameters: Tensor) -> Tensor:
        """Return the probability of each label, (..., num_labels)."""
        return widened(parameters).sigmoid()

    def predict(self, parameters: Tensor) -> Tensor:
        """Return 1.0 for each label with a probability above one half, else 0.0, (..., num_labels)."""
        return (parameters > 0).to(widened(parameters).dtype)

    def sharpen(self, parameters: Tensor, temperature: float) -> Tensor:
        """Divide logits by the temperature; with 0, the result of `predict` gets probability 1."""
        return sharpened_signs(parameters, temperature)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample 1.0 or 0.0 for each label, (..., num_labels)."""
        return bernoulli(parameters.detach(), generator)

    def distribution(self, parameters: Tensor) -> Distribution:
        labels = Bernoulli(logits=widened(parameters), validate_args=False)
        return Independent(labels, 1, validate_args=False)


def bernoulli(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Sample 1.0 with probability σ(logits), else 0.0."""
    shares = widened(logits).sigmoid()
    return (torch.rand(shares.shape, generator=generator, device=shares.device, dtype=shares.dtype) < shares).to(shares)
