"""The first element of a sequence decides the last target (Hochreiter & Schmidhuber 1997, experiments 2 and 3)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from unrolled.training.data.base import DataError
from unrolled.training.data.generated import Criterion, Draw, Example, Problem


@dataclass(frozen=True, kw_only=True)
class NoiseFreeLag(Problem):
    """Predict the last symbol, which repeats the first or the second one: x or y.

    - `2a`: x a₁ a₂ … x or y a₁ a₂ … y, the same `lag` − 1 symbols in between. The network predicts the next symbol at
      each step.
    - `2b`: the symbols in between are drawn at random, so that only the last one can be predicted.
    - `2c`: b, x or y, at least `lag` random symbols, e, and x or y again. After each of them, the end comes with
      probability 1/10. Only x or y after e is predicted.

    A sequence is right if the error of each output at the last prediction is below 0.25, in 2c below 0.2, and in 2a at
    each prediction. The paper demands 10,000 in a row.

    Attributes:
        variant: 2a, 2b or 2c.
        lag: p of 2a and 2b, q of 2c: the number of steps that x or y must be stored, at least.
        symbols: number of symbols that may stand in between; None: `lag` − 1, in 2c `lag`. 2a has no choice.

    Raises:
        DataError: another variant, a lag below 2, or a number of symbols below 1 or in 2a.
    """

    variant: Literal["2a", "2b", "2c"] = "2a"
    lag: int = 100
    symbols: int | None = None

    def __post_init__(self) -> None:
        if self.variant not in ("2a", "2b", "2c"):
            raise DataError(f"variant={self.variant}: expected 2a, 2b or 2c")
        if self.lag < 2:
            raise DataError(f"lag={self.lag}: expected 2 or more")
        if self.symbols is not None and (self.symbols < 1 or self.variant == "2a"):
            raise DataError(f"symbols={self.symbols}: expected 1 or more; 2a takes null, since it has each symbol once")

    @property
    def distractors(self) -> int:
        """Number of symbols that may stand in between."""
        return self.symbols or (self.lag if self.variant == "2c" else self.lag - 1)

    @property
    def names(self) -> list[str]:
        """See `Problem.names`."""
        ends = ["x", "y", "b", "e"] if self.variant == "2c" else ["x", "y"]
        return [*ends, *(f"a{number + 1}" for number in range(self.distractors))]

    @property
    def outputs(self) -> list[str]:
        """See `Problem.outputs`."""
        return ["x", "y"] if self.variant == "2c" else self.names

    def draw(self, random: Draw, split: str, index: int) -> Example:
        """See `Problem.draw`."""
        end = int(random.integers(2))
        if self.variant == "2c":
            # A prefix, then further symbols until e is drawn.
            count = self.lag + int(random.geometric(0.1)) - 1
            between = 4 + random.integers(self.distractors, size=count)
            inputs = np.concatenate([[2, end], between, [3]])
            return Example(inputs, np.array([end]), np.array([len(inputs) - 1]))
        order = np.arange(self.lag - 1)
        between = 2 + (order if self.variant == "2a" else random.integers(self.distractors, size=self.lag - 1))
        symbols = np.concatenate([[end], between, [end]])
        truth = np.eye(len(self.names), dtype=np.float32)[symbols[1:]]
        if self.variant == "2b":
            truth[:-1] = 0.0
        return Example(symbols[:-1], symbols[1:], truth=truth)

    @property
    def criterion(self) -> Criterion:
        """See `Problem.criterion`."""
        return Criterion(tolerance=0.2 if self.variant == "2c" else 0.25)

    def right(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """See `Problem.right`; without a 1 in the truth nothing can be known, and every output is right."""
        return (truth == 0).all(-1) | super().right(outputs, truth)


_NOISY = {
    "3a": Criterion(tolerance=0.2, max_error=0.01),
    "3b": Criterion(tolerance=0.2, max_wrong=5 / 256, max_error=0.04),
    "3c": Criterion(tolerance=0.1, max_wrong=5 / 256, max_error=0.015),
}


@dataclass(frozen=True, kw_only=True)
class NoisyLag(Problem):
    """Tell the class of a sequence of numbers by its first elements: the two-sequence problem of Bengio et al. 1994.

    The first elements are 1 in class 1 and −1 in class 2. All others are normal with mean 0 and variance 0.2.

    - `3a`: the target after the last element is 1 for class 1 and 0 for class 2; an error below 0.2 is right. Solved if
      all are right and the mean error is below 0.01.
    - `3b`: the first elements are noisy, too, with variance 0.2. Solved if fewer than 6 of 256 are wrong and the mean
      error is below 0.04.
    - `3c`: as 3a, but the target is 0.2 or 0.8, with noise of variance 0.1, so that a network must learn the mean. It
      is compared with the mean: an error below 0.1 is right. Solved if fewer than 6 of 256 are wrong and the mean error
      is below 0.015.

    Attributes:
        variant: 3a, 3b or 3c.
        min_length: T; lengths are between T and T + T/10.
        informative: number of elements that tell the class.

    Raises:
        DataError: another variant, or not 1 ≤ `informative` ≤ `min_length`.
    """

    variant: Literal["3a", "3b", "3c"] = "3a"
    min_length: int = 100
    informative: int = 3

    inputs: ClassVar = "frame"
    target_type: ClassVar = "number"

    def __post_init__(self) -> None:
        if self.variant not in _NOISY:
            raise DataError(f"variant={self.variant}: expected 3a, 3b or 3c")
        if not 1 <= self.informative <= self.min_length:
            raise DataError(
                f"informative={self.informative}, min_length={self.min_length}: expected 1 ≤ informative ≤ min_length"
            )

    @property
    def names(self) -> tuple[str]:
        """See `Problem.names`."""
        return ("number",)

    @property
    def outputs(self) -> tuple[str]:
        """See `Problem.outputs`."""
        return ("class",)

    @property
    def criterion(self) -> Criterion:
        """See `Problem.criterion`."""
        return _NOISY[self.variant]

    def draw(self, random: Draw, split: str, index: int) -> Example:
        """See `Problem.draw`."""
        length = int(random.integers(self.min_length, self.min_length + self.min_length // 10 + 1))
        first = bool(random.integers(2))
        frames = random.normal(0.0, 0.2**0.5, size=(length, 1)).astype(np.float32)
        if self.variant != "3b":
            frames[: self.informative] = 0.0
        frames[: self.informative] += 1.0 if first else -1.0
        mean = (0.2 if first else 0.8) if self.variant == "3c" else float(first)
        target = mean + (random.normal(0.0, 0.1**0.5) if self.variant == "3c" else 0.0)
        steps, (target, truth) = np.array([length - 1]), (np.array([[each]], np.float32) for each in (target, mean))
        return Example(frames, target, steps, truth)
