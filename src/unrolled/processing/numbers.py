"""Numbers in units of their deviation and back."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.processing.transform import Transform
from unrolled.wording import counted


class Scaler(Transform):
    """Scales numbers by (number − center) / scale, as fitted to the training split, and restores them.

    All is computed in double precision: a float32 far from zero has few digits left for what varies.

    Args:
        names: names of the numbers.
        centers: subtracted.
        scales: divisors, above 0.
        bounded: whether the numbers are in [0, 1] and are predicted as probabilities, without center and scale.

    Raises:
        ValueError: other counts, a scale that is not above 0, or bounded numbers with a center or scale.
    """

    def __init__(
        self, names: Sequence[str], centers: Sequence[float], scales: Sequence[float], bounded: bool = False
    ) -> None:
        self.names, self.centers, self.scales = list(names), list(centers), list(scales)
        self.bounded = bounded
        self.size = len(self.names)
        if not self.size == len(self.centers) == len(self.scales) > 0 or not all(
            0 < scale < float("inf") for scale in self.scales
        ):
            raise ValueError(
                f"{counted(self.size, 'number')}, centers={self.centers}, scales={self.scales}: "
                "expected one each, and scales above 0"
            )
        if bounded and (any(self.centers) or any(scale != 1 for scale in self.scales)):
            raise ValueError("bounded numbers are probabilities: their centers are 0 and their scales 1")

    def encode(self, value: Sequence[float]) -> list[float]:
        """Return the scaled numbers."""
        return [(n - center) / scale for n, center, scale in zip(value, self.centers, self.scales, strict=True)]

    def decode(self, encoded: Any, given: Any = None) -> list[float]:
        """Return numbers in their own units, of scaled ones (a sequence or a tensor)."""
        values = encoded if isinstance(encoded, Tensor) else torch.tensor(list(encoded), dtype=torch.float64)
        return self.restore(values).tolist()

    def restore(self, encoded: Tensor) -> Tensor:
        """Return numbers (…, size) in their own units, in float64 on the CPU."""
        centers, scales = (torch.tensor(each, dtype=torch.float64) for each in (self.centers, self.scales))
        return encoded.cpu().double() * scales + centers

    def normalize(self, value: Sequence[float]) -> list[float]:
        """Return the numbers as they are."""
        return [float(number) for number in value]

    def collate(self, encoded: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor]:
        """Return scaled numbers (batch, size) in float32."""
        rows = [torch.tensor(list(numbers), dtype=torch.float32) for numbers in encoded]
        values = torch.stack(rows) if rows else torch.zeros(0, self.size)
        return values, torch.ones(len(rows), dtype=torch.int64)

    def format(self, numbers: Sequence[float], digits: int = 6) -> list[str]:
        """Format numbers in their own units with this many digits of what varies: with more, far from zero."""
        counts = (
            min(17, digits + max(0, math.floor(math.log10(max(abs(center) / scale, 1)))))
            for center, scale in zip(self.centers, self.scales, strict=True)
        )
        return [f"{number:.{count}g}" for number, count in zip(numbers, counts, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        return {
            "_target_": "unrolled.Scaler",
            "names": list(self.names),
            "centers": list(self.centers),
            "scales": list(self.scales),
            "bounded": self.bounded,
        }
