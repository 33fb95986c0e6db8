"""Languages of counters: aⁿbⁿ, aⁿbⁿcⁿ and balanced brackets. A network predicts which symbols may come next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unrolled.training.data.base import DataError
from unrolled.training.data.generated import Criterion, Draw, Example, Problem
from unrolled_tasks.counting.lengths import check_range, draw_length

START, END = "S", "T"


@dataclass(frozen=True, kw_only=True)
class Counted(Problem):
    """Strings aⁿbⁿ, aⁿbⁿcⁿ, … as Gers & Schmidhuber (2001) learn them.

    The network reads S and the string, and predicts at each step all symbols that may come next, and none of the
    others: a or T (the end) after S; a or b after an a; then only what completes the string. An output is set above ½.
    A string is accepted if all its predictions are right. Training runs through its n in turn; validation has each n of
    training once, and the test each of its n once.

    Attributes:
        letters: number of letters: 2 for aⁿbⁿ, 3 for aⁿbⁿcⁿ.
        train_n: smallest and greatest n of training.
        test_n: smallest and greatest n of the test.

    Raises:
        DataError: fewer than 2 letters or more than 18, or an invalid range.
    """

    letters: int = 2
    train_n: Sequence[int] = (1, 10)
    test_n: Sequence[int] = (1, 1000)

    target_type: ClassVar = "labels"

    def __post_init__(self) -> None:
        if not 2 <= self.letters <= 18:
            raise DataError(f"letters={self.letters}: expected 2 to 18, from a to r")
        check_range("train_n", self.train_n)
        check_range("test_n", self.test_n)

    @property
    def criterion(self) -> Criterion:
        """See `Problem.criterion`."""
        return Criterion(tolerance=0.5)

    @property
    def alphabet(self) -> str:
        """The letters."""
        return "abcdefghijklmnopqr"[: self.letters]

    @property
    def names(self) -> str:
        """See `Problem.names`."""
        return START + self.alphabet

    @property
    def outputs(self) -> str:
        """See `Problem.outputs`."""
        return self.alphabet + END

    def size(self, split: str, wanted: int) -> int:
        """See `Problem.size`."""
        return wanted if split == "train" else len(self._ns(split))

    def _ns(self, split: str) -> range:
        first, last = self.test_n if split == "test" else self.train_n
        return range(first, last + 1)

    def draw(self, random: Draw, split: str, index: int) -> Example:
        """See `Problem.draw`; nothing is random but the order of training."""
        ns = self._ns(split)
        n = ns[index % len(ns)]
        letters = np.repeat(np.arange(self.letters), n)
        targets = np.zeros((1 + len(letters), self.letters + 1), dtype=np.float32)
        targets[0, [0, self.letters]] = 1.0  # S: a string, or its end
        targets[1 : n + 1, :2] = 1.0  # a: another a, or the first b
        targets[np.arange(n + 1, len(targets) - 1), letters[n + 1 :]] = 1.0
        targets[-1, self.letters] = 1.0
        return Example(np.concatenate([[0], letters + 1]), targets)


@dataclass(frozen=True, kw_only=True)
class Dyck(Problem):
    """Balanced brackets of one kind, Dyck-1 (Suzgun et al. 2019; Bhattamishra et al. 2020).

    The network reads S and the string, and predicts at each step all symbols that may come next: an opening bracket
    always, a closing one if one is open, and T, the end, if none is. All strings of a length are equally likely.

    Attributes:
        train_lengths: shortest and longest string of training; lengths are even.
        test_lengths: shortest and longest string of the test.

    Raises:
        DataError: an invalid range, or one without an even number.
    """

    train_lengths: Sequence[int] = (2, 40)
    test_lengths: Sequence[int] = (42, 256)

    target_type: ClassVar = "labels"

    def __post_init__(self) -> None:
        for name in ("train_lengths", "test_lengths"):
            given: Sequence[int] = getattr(self, name)
            check_range(name, given)
            if given[0] == given[1] and given[0] % 2:
                raise DataError(f"{name}={list(given)}: balanced brackets have an even length")

    @property
    def criterion(self) -> Criterion:
        """See `Problem.criterion`."""
        return Criterion(tolerance=0.5)

    @property
    def names(self) -> str:
        """See `Problem.names`."""
        return f"{START}()"

    @property
    def outputs(self) -> str:
        """See `Problem.outputs`."""
        return f"(){END}"

    def draw(self, random: Draw, split: str, index: int) -> Example:
        """See `Problem.draw`."""
        length = draw_length(random, self.test_lengths if split == "test" else self.train_lengths, step=2, first=0)
        depths = np.zeros(length + 1, dtype=np.int64)
        chances = random.random(length)
        for step in range(length):
            depth, left = int(depths[step]), length - step
            # The share of the strings with this beginning that open another bracket, by the ballot numbers.
            opens = chances[step] < (depth + 2) * (left - depth) / (2 * left * (depth + 1))
            depths[step + 1] = depth + (1 if opens else -1)
        inputs = np.concatenate([[0], np.where(np.diff(depths) > 0, 1, 2)])
        targets = np.stack([np.ones(length + 1), depths > 0, depths == 0], axis=1).astype(np.float32)
        return Example(inputs, targets)
