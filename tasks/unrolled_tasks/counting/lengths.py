"""Ranges of lengths: short in training, longer in the test."""

from collections.abc import Sequence

from unrolled.training.data.base import DataError
from unrolled.training.data.generated import Draw


def check_range(name: str, given: Sequence[int], least: int = 1) -> None:
    """Checks a range of lengths, both ends included.

    Raises:
        DataError: not two numbers in ascending order, or one below `least`.
    """
    if len(given) != 2 or not least <= given[0] <= given[1]:
        raise DataError(f"{name}={list(given)}: expected [shortest, longest], with {least} ≤ shortest ≤ longest")


def draw_length(random: Draw, given: Sequence[int], step: int = 1, first: int = 1) -> int:
    """Draws a length of the range; all that are `first` plus a multiple of `step` are equally likely."""
    lengths = [length for length in range(given[0], given[1] + 1) if (length - first) % step == 0]
    return lengths[random.integers(len(lengths))]
