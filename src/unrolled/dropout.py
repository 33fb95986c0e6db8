"""Dropout on sequences, kept outside every kernel, so that a seed means the same on each device."""

import torch
from torch import Tensor, nn

from unrolled.shapes import expect


class _Dropout(nn.Module):
    """What both have: a probability, and a mode in which nothing is dropped."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise ValueError(f"dropout is {probability}, expected a probability in [0, 1)")
        self.probability = probability

    @property
    def active(self) -> bool:
        """Whether anything is dropped in the present mode."""
        return self.training and self.probability > 0.0


class SequenceDropout(_Dropout):
    """Dropout on (batch, time, features).

    Args:
        probability: share of the values that is set to zero while training; the rest grows by 1 / (1 − probability).
        variational: one mask for all time steps of a sequence (Gal & Ghahramani 2016) instead of a new one at each.

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def __init__(self, probability: float, *, variational: bool = False) -> None:
        super().__init__(probability)
        self.variational = variational

    def forward(self, values: Tensor) -> Tensor:
        """(batch, time, features) -> the same shape."""
        expect(values, "batch time features", name="values")
        if not self.active:
            return values
        if not self.variational:
            return nn.functional.dropout(values, self.probability)
        ones = values.new_ones(values.shape[0], 1, values.shape[2])
        return values * nn.functional.dropout(ones, self.probability)

    def extra_repr(self) -> str:
        return f"{self.probability}, variational={self.variational}"


class TokenDropout(_Dropout):
    """Zeroes whole tokens of (batch, time, features): word dropout (Bowman et al. 2016, section 3.1).

    The others keep their size: a recurrent net reads one token at a step, so there is no sum to make up for.

    Args:
        probability: share of the tokens that is set to zero while training.

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def forward(self, values: Tensor) -> Tensor:
        """(batch, time, features) -> the same shape."""
        expect(values, "batch time features", name="values")
        if not self.active:
            return values
        return values * (torch.rand_like(values[..., :1]) >= self.probability)

    def extra_repr(self) -> str:
        return f"{self.probability}"
