"""Numbers by their mean."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from unrolled.heads.base import VectorHead
from unrolled.heads.checks import check_shares, check_sizes
from unrolled.heads.temperature import check_temperature, widened


class NumbersHead(VectorHead):
    """Predicts the mean of each number, and nothing of how far a number may be from it.

    A target is (..., num_outputs), as a scaler gives it. Its loss is half the squared distance: up to a constant, minus
    the log-probability under a normal distribution of variance 1. With `bounded`, targets lie from 0 to 1, a parameter
    is the logit of their mean, and the loss is the cross-entropy in nats, summed over the numbers.

    `sample` gives the mean, which is how forecasts are fed back. For draws take `MixtureHead`, which learns how far
    numbers scatter.

    Args:
        input_size: features of an input.
        num_outputs: entries of a target.
        bounded: targets lie from 0 to 1.
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
        """(..., num_outputs): half the squared error of each number, or its cross-entropy.

        Raises:
            ValueError: bounded targets outside [0, 1], where they are on the CPU.
        """
        outputs = widened(parameters)
        targets = targets.to(outputs.dtype)
        if not self.bounded:
            return 0.5 * (outputs - targets).square()
        check_shares(targets)
        return binary_cross_entropy_with_logits(outputs, targets, reduction="none")

    def predict(self, parameters: Tensor) -> Tensor:
        """(..., num_outputs): the mean of each number."""
        outputs = widened(parameters)
        return outputs.sigmoid() if self.bounded else outputs

    def sharpen(self, parameters: Tensor, temperature: float) -> Tensor:
        """The parameters as they are: a mean can't be sharper."""
        check_temperature(temperature)
        return parameters

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(..., num_outputs): what `predict` gives; nothing is drawn."""
        return self.predict(parameters.detach())
