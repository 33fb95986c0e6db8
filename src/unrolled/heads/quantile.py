"""Quantile regression."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unrolled.heads.base import VectorHead
from unrolled.heads.checks import check_sizes
from unrolled.heads.temperature import check_temperature, widened


class QuantileHead(VectorHead):
    """Predicts quantiles of each number, with the pinball loss (Koenker & Bassett 1978; Wen et al. 2017, section 3.1).

    Parameters are (..., num_outputs × quantiles), with adjacent quantiles of an output; a target is (..., num_outputs).
    The loss of a number y is Σ_q max(q (y − ŷ_q), (q − 1)(y − ŷ_q)), in the units of the targets. It is not a log
    probability, so there is no `distribution`.

    Predicted quantiles need not be in ascending order: they may cross with few training examples or unusual inputs.

    Args:
        input_size: number of input features.
        num_outputs: number of entries of a target.
        quantiles: probabilities of the quantiles in ascending order, between 0 and 1 and including 0.5.
        bias: whether parameters have a bias.

    Raises:
        ValueError: a size below one, invalid quantiles, or quantiles without the median.
    """

    def __init__(
        self, input_size: int, num_outputs: int, *, quantiles: Sequence[float] = (0.1, 0.5, 0.9), bias: bool = True
    ) -> None:
        check_sizes(num_outputs=num_outputs)
        # Numbers instead of a buffer, which a module in bfloat16 would round from 0.999 to 1.
        self.quantiles = tuple(float(quantile) for quantile in quantiles)
        inside = all(0.0 < quantile < 1.0 for quantile in self.quantiles)
        if not inside or any(low >= high for low, high in pairwise(self.quantiles)) or 0.5 not in self.quantiles:
            raise ValueError(f"quantiles={list(quantiles)}: ascending numbers between 0 and 1, with 0.5, the median")
        super().__init__(input_size, num_outputs * len(self.quantiles), bias=bias)
        self.num_outputs = self.target_size = num_outputs

    def values(self, parameters: Tensor) -> Tensor:
        """Return the value of each quantile, (..., num_outputs, quantiles)."""
        return widened(parameters).unflatten(-1, (self.num_outputs, len(self.quantiles)))

    def entry_losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Compute the pinball loss of each number, summed over the quantiles, (..., num_outputs)."""
        values = self.values(parameters)
        errors = (targets.to(values.dtype).unsqueeze(-1) - values).unbind(-1)
        pairs = zip(self.quantiles, errors, strict=True)
        return torch.stack([torch.maximum(q * error, (q - 1) * error) for q, error in pairs], -1).sum(-1)

    def predict(self, parameters: Tensor) -> Tensor:
        """Return the median of each number, (..., num_outputs)."""
        return self.values(parameters)[..., self.quantiles.index(0.5)]

    def quantiles_at(self, parameters: Tensor, levels: Sequence[float]) -> Tensor:
        """See `VectorHead.quantiles_at`. Between two predicted quantiles, others are interpolated.

        Raises:
            ValueError: a level below the least predicted quantile, or above the greatest.
        """
        values = self.values(parameters.detach()).sort(-1).values
        found: list[Tensor] = []
        for level in levels:
            if not self.quantiles[0] <= level <= self.quantiles[-1]:
                raise ValueError(
                    f"quantile {level} is outside of what this network predicts, {self.quantiles[0]} to "
                    f"{self.quantiles[-1]}; train it with more quantiles"
                )
            after = max(1, bisect_left(self.quantiles, level))
            if len(self.quantiles) == 1:
                found.append(values[..., 0])
                continue
            low, high = self.quantiles[after - 1 : after + 1]
            found.append(torch.lerp(values[..., after - 1], values[..., after], (level - low) / (high - low)))
        return torch.stack(found, -1)

    def sharpen(self, parameters: Tensor, temperature: float) -> Tensor:
        """Multiply each quantile's distance from the median by the temperature."""
        scale = 0.0 if temperature == 0.0 else check_temperature(temperature)
        median = self.predict(parameters).unsqueeze(-1)
        return (median + scale * (self.values(parameters) - median)).flatten(-2)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample each number as the quantile of a uniformly drawn probability, (..., num_outputs).

        Values between two quantiles are interpolated. Outside of all quantiles, the outermost is returned.
        """
        values = self.values(parameters.detach()).sort(-1).values.unbind(-1)
        like = values[0]
        drawn = torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
        result = like
        steps = zip(pairwise(self.quantiles), pairwise(values), strict=True)
        for (low, high), (below, above) in steps:
            result = result + (above - below) * ((drawn - low) / (high - low)).clamp(0.0, 1.0)
        return result
