"""Regular languages that need a state: parity, even pairs and modular arithmetic (Delétang et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unrolled.training.data.base import DataError
from unrolled.training.data.generated import Draw, Example, Problem
from unrolled_tasks.counting.lengths import check_range, draw_length

_OPERATORS = "+-*"


@dataclass(frozen=True, kw_only=True)
class Parity(Problem):
    """Strings of a and b: is the number of b even?

    Attributes:
        train_lengths: shortest and longest string of training.
        test_lengths: shortest and longest string of the test.
        every_step: ask at each step, of the string so far; otherwise after the last one alone, as the paper does.

    Raises:
        DataError: an invalid range.
    """

    train_lengths: Sequence[int] = (1, 40)
    test_lengths: Sequence[int] = (41, 256)
    every_step: bool = False

    def __post_init__(self) -> None:
        check_range("train_lengths", self.train_lengths)
        check_range("test_lengths", self.test_lengths)

    @property
    def names(self) -> str:
        """See `Problem.names`."""
        return "ab"

    @property
    def outputs(self) -> tuple[str, str]:
        """See `Problem.outputs`."""
        return "even", "odd"

    def classes(self, inputs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the class after each step."""
        return np.cumsum(inputs) % 2

    def draw(self, random: Draw, split: str, index: int) -> Example:
        """See `Problem.draw`."""
        length = draw_length(random, self.test_lengths if split == "test" else self.train_lengths)
        inputs = random.integers(2, size=length)
        classes = self.classes(inputs)
        return Example(inputs, classes) if self.every_step else Example(inputs, classes[-1:], np.array([length - 1]))


class EvenPairs(Parity):
    """Strings of a and b: is the number of pairs ab and ba even? It is if the first symbol equals the last one."""

    def classes(self, inputs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the class after each step."""
        return np.cumsum(np.diff(inputs, prepend=inputs[:1]) != 0) % 2


@dataclass(frozen=True, kw_only=True)
class ModularArithmetic(Problem):
    """Sums, differences and products of digits modulo a number; products first, without brackets.

    The network reads 1+2*3-4 and predicts the result after the last digit: 3 modulo 5.

    Attributes:
        modulus: the modulus; digits are below.
        train_lengths: shortest and longest expression of training, in symbols; lengths are odd.
        test_lengths: shortest and longest expression of the test.

    Raises:
        DataError: a modulus outside 2 … 10, an invalid range, or one without an odd number.
    """

    modulus: int = 5
    train_lengths: Sequence[int] = (1, 40)
    test_lengths: Sequence[int] = (41, 256)

    def __post_init__(self) -> None:
        if not 2 <= self.modulus <= 10:
            raise DataError(f"modulus={self.modulus}: expected 2 to 10")
        for name in ("train_lengths", "test_lengths"):
            given: Sequence[int] = getattr(self, name)
            check_range(name, given)
            if given[0] == given[1] and given[0] % 2 == 0:
                raise DataError(f"{name}={list(given)}: digits with operators between them have an odd length")

    @property
    def names(self) -> str:
        """See `Problem.names`."""
        return "0123456789"[: self.modulus] + _OPERATORS

    @property
    def outputs(self) -> str:
        """See `Problem.outputs`."""
        return "0123456789"[: self.modulus]

    def draw(self, random: Draw, split: str, index: int) -> Example:
        """See `Problem.draw`."""
        length = draw_length(random, self.test_lengths if split == "test" else self.train_lengths, step=2)
        digits, operators = random.integers(self.modulus, size=length // 2 + 1), random.integers(3, size=length // 2)
        total, product = 0, int(digits[0])  # of the terms before the current one; the current term with its sign
        for operator, digit in zip(operators.tolist(), digits[1:].tolist(), strict=True):
            if _OPERATORS[operator] == "*":
                product *= digit
            else:
                total, product = total + product, digit if _OPERATORS[operator] == "+" else -digit
            total, product = total % self.modulus, product % self.modulus
        inputs = np.empty(length, dtype=np.int64)
        inputs[::2], inputs[1::2] = digits, operators + self.modulus
        return Example(inputs, np.array([(total + product) % self.modulus]), np.array([length - 1]))
