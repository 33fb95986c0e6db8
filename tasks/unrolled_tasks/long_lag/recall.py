"""Symbols to remember and to repeat: after a long wait, or always the same number of steps later."""

from dataclasses import dataclass

import numpy as np

from unrolled.training.data.base import DataError
from unrolled.training.data.generated import Draw, Example, Problem

_BLANK, _GO = "_", ":"


def _letters(symbols: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[:symbols]


def _check_symbols(symbols: int) -> None:
    if not 2 <= symbols <= 26:
        raise DataError(f"symbols={symbols}: expected 2 to 26 letters")


@dataclass(frozen=True, kw_only=True)
class Copy(Problem):
    """Repeat letters after a wait: the copying memory problem of Arjovsky, Shah & Bengio 2016, after experiment 2.

    The network reads random letters, `lag` − 1 blanks, a colon, and as many blanks as there were letters. It predicts a
    blank at each step, and after the colon the letters in their order. Without memory the loss is at least
    `count` · ln `symbols` / (`lag` + 2 · `count`) per step.

    Attributes:
        lag: T, the number of steps between the last letter and its repetition.
        count: number of letters.
        symbols: number of different letters.

    Raises:
        DataError: a number below 1, or fewer than 2 letters or more than 26.
    """

    lag: int = 100
    count: int = 10
    symbols: int = 8

    def __post_init__(self) -> None:
        if min(self.lag, self.count) < 1:
            raise DataError(f"lag={self.lag}, count={self.count}: expected 1 or more")
        _check_symbols(self.symbols)

    @property
    def names(self) -> str:
        """See `Problem.names`."""
        return _letters(self.symbols) + _BLANK + _GO

    @property
    def outputs(self) -> str:
        """See `Problem.outputs`."""
        return _letters(self.symbols) + _BLANK

    def draw(self, random: Draw, split: str, index: int) -> Example:
        """See `Problem.draw`."""
        inputs = np.full(self.lag + 2 * self.count, self.symbols)
        targets = inputs.copy()
        inputs[: self.count] = targets[-self.count :] = random.integers(self.symbols, size=self.count)
        inputs[self.count + self.lag - 1] = self.symbols + 1
        return Example(inputs, targets)


@dataclass(frozen=True, kw_only=True)
class DelayedRecall(Problem):
    """Repeat each letter `lag` steps after it was read; before that, nothing is predicted.

    Attributes:
        lag: number of steps between a letter and its repetition; 0 for none.
        count: number of letters to repeat.
        symbols: number of different letters.

    Raises:
        DataError: a lag below 0, a count below 1, or fewer than 2 letters or more than 26.
    """

    lag: int = 10
    count: int = 50
    symbols: int = 4

    def __post_init__(self) -> None:
        if self.lag < 0 or self.count < 1:
            raise DataError(f"lag={self.lag}, count={self.count}: expected a lag of 0 or more and 1 or more letters")
        _check_symbols(self.symbols)

    @property
    def names(self) -> str:
        """See `Problem.names`."""
        return _letters(self.symbols)

    @property
    def outputs(self) -> str:
        """See `Problem.outputs`."""
        return _letters(self.symbols)

    def draw(self, random: Draw, split: str, index: int) -> Example:
        """See `Problem.draw`."""
        inputs = random.integers(self.symbols, size=self.lag + self.count)
        return Example(inputs, inputs[: self.count], np.arange(self.lag, self.lag + self.count))
