"""Two marked numbers of a long sequence: their sum or product (Hochreiter & Schmidhuber 1997, experiments 4 and 5)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unrolled.training.data.base import DataError
from unrolled.training.data.generated import Criterion, Draw, Example, Problem


@dataclass(frozen=True, kw_only=True)
class Adding(Problem):
    """Add two marked numbers.

    A frame is a number between −1 and 1 and a marker: 1 for the two numbers to add, −1 for the first and the last
    frame, 0 for all others. One of the first ten frames is marked, then another one of the first T/2 − 1. If it is the
    first frame that is marked, its number counts as 0. After the last frame the target is 0.5 + (X₁ + X₂)/4. A sequence
    is right if the absolute error is below 0.04; the problem is solved if all are, and the mean error is below 0.01.

    Attributes:
        min_length: T; lengths are between T and T + T/10.

    Raises:
        DataError: T below 22, which leaves no second number beyond the first ten.
    """

    min_length: int = 100

    inputs: ClassVar = "frame"
    target_type: ClassVar = "number"

    _lowest: ClassVar = -1.0  # number
    _unmarked: ClassVar = 0.0  # what a marked first number counts as

    def __post_init__(self) -> None:
        if self.min_length < 22:
            raise DataError(f"min_length={self.min_length}: expected 22 or more, to mark two numbers far from the end")

    @property
    def criterion(self) -> Criterion:
        """See `Problem.criterion`."""
        return Criterion(tolerance=0.04, max_error=0.01)

    @property
    def names(self) -> tuple[str, str]:
        """See `Problem.names`."""
        return "number", "marker"

    @property
    def outputs(self) -> tuple[str]:
        """See `Problem.outputs`."""
        return ("result",)

    def draw(self, random: Draw, split: str, index: int) -> Example:
        """See `Problem.draw`."""
        length = int(random.integers(self.min_length, self.min_length + self.min_length // 10 + 1))
        frames = np.zeros((length, 2), dtype=np.float32)
        frames[:, 0] = random.uniform(self._lowest, 1.0, size=length)
        first = int(random.integers(10))
        second = int(random.integers(self.min_length // 2 - 2))
        second += second >= first  # one of those that are still unmarked
        frames[[0, -1], 1] = -1.0
        frames[[first, second], 1] = 1.0
        if frames[0, 1] == 1.0:
            frames[0, 0] = self._unmarked
        result = self.result(float(frames[first, 0]), float(frames[second, 0]))
        return Example(frames, np.array([[result]], dtype=np.float32), np.array([length - 1]))

    def result(self, first: float, second: float) -> float:
        """Returns the target of two numbers."""
        return 0.5 + (first + second) / 4.0


@dataclass(frozen=True, kw_only=True)
class Multiplication(Adding):
    """Multiply two marked numbers between 0 and 1; otherwise as `Adding`.

    If the first frame is marked, its number counts as 1. The problem is solved if fewer than 13 of 2,000 sequences are
    wrong.
    """

    _lowest: ClassVar = 0.0
    _unmarked: ClassVar = 1.0

    @property
    def criterion(self) -> Criterion:
        """See `Problem.criterion`."""
        return Criterion(tolerance=0.04, max_wrong=12 / 2000)

    def result(self, first: float, second: float) -> float:
        """See `Adding.result`."""
        return first * second
