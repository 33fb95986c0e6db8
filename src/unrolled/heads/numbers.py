"""Regression: the means of numbers."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from unrolled.heads.base import VectorHead
from unrolled.heads.checks import check_shares, check_sizes
from unrolled.heads.temperature import check_temperature, widened


class NumbersHead(VectorHead):
    """Predicts the mean of each number, without its variance.

    A target is (..., num_outputs), normalized by a scaler. Its loss is half the squared distance, which is, up to a
    constant, the negative log probability under a normal distribution with variance 1. With `bounded`, targets are from
    0 to 1, a parameter is the logit of their mean, and the loss is the cross-entropy in nats, summed over the numbers.

    `sample` returns the mean, which is fed back in forecasts. `MixtureHead` learns the variance, too, and can be
    sampled.

    Args:
        input_size: number of input features.
        num_outputs: number of entries of a target.
        bounded: whether targets are from 0 to 1.
        bias: whether parameters have a bias.

    Raises:
        ValueError: a size below one.
    """

    def __init__(self, input_size: int, num_outputs: int, *, bounded: bool = False, bias: bool = True) -> None:
        check_sizes(num_outputs=num_outputs)
        super().__init__(input_size, num_outputs, bias=bias)
        self.num_outputs = self.target_size = num_outputs
        self.bounded = bounded

    def entry_losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Compute half the squared error of each number, or its cross-entropy, (..., num_outputs).

        Raises:
            ValueError: bounded targets outside [0, 1]; checked only on the CPU.
        """
        outputs = widened(parameters)
        targets = targets.to(outputs.dtype)
        if not self.bounded:
            return 0.5 * (outputs - targets).square()
        check_shares(targets)
        return binary_cross_entropy_with_logits(outputs, targets, reduction="none")

    def predict(self, parameters: Tensor) -> Tensor:
        """Return the mean of each number, (..., num_outputs)."""
        outputs = widened(parameters)
        return outputs.sigmoid() if self.bounded else outputs

    def sharpen(self, parameters: Tensor, temperature: float) -> Tensor:
        """Return the parameters unchanged: there is no variance to reduce."""
        check_temperature(temperature)
        return parameters

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the result of `predict`, (..., num_outputs)."""
        return self.predict(parameters.detach())
