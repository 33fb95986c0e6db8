"""Division of examples into training, validation and test splits: by position, label, group or name."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.buckets import Ints
from unrolled.training.data.files import did_you_mean
from unrolled.wording import counted


@dataclass(frozen=True, kw_only=True)
class Split:
    """How missing splits are divided off the training examples.

    Attributes:
        split_fractions: fractions for training, validation and test, which sum to 1. A split with its own examples
            takes none.
        seed: seed of a random division.

    Raises:
        DataError: fractions that are negative or don't sum to 1.
    """

    split_fractions: Sequence[float] = (0.9, 0.05, 0.05)
    seed: int = 0

    def __post_init__(self) -> None:
        fractions = [float(fraction) for fraction in self.split_fractions]
        if len(fractions) != 3 or min(fractions) < 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
            raise DataError(
                f"split_fractions={fractions}: must be three fractions, for training, validation and test, that sum "
                "to 1"
            )

    @property
    def fractions(self) -> dict[str, float]:
        """The fraction of each split."""
        return {split: float(share) for split, share in zip(SPLITS, self.split_fractions, strict=True)}

    def last(self, count: int, given: Sequence[str]) -> dict[str, Ints]:
        """Divides examples by position: the last ones are the test split, those before them are for validation.

        Args:
            count: number of training examples.
            given: splits with their own examples.

        Returns:
            The indices of the training examples that stay for training, and of those in each other nonempty split.
        """
        return self._divided(count, given, lambda left, wanted, seed: np.arange(len(left) - wanted, len(left)))

    def shuffled(self, count: int, given: Sequence[str]) -> dict[str, Ints]:
        """Divides examples at random; see `last` for the arguments and the result."""
        return self._divided(
            count, given, lambda left, wanted, seed: np.random.default_rng(seed).permutation(len(left))[:wanted]
        )

    def _divided(self, count: int, given: Sequence[str], choose: Callable[[Ints, int, int], Ints]) -> dict[str, Ints]:
        """Divides training examples, where `choose(left, wanted, seed)` returns places in `left` for a split."""
        left, found = np.arange(count), dict[str, Ints]()
        for number, split in ((2, "test"), (1, "validation")):
            wanted = min(round(count * self.split_fractions[number]), len(left))
            if split not in given and wanted:
                taken = np.zeros(len(left), dtype=np.bool_)
                taken[choose(left, wanted, self.seed + number)] = True
                left, found[split] = left[~taken], left[taken]
        return {**found, "train": left}


@dataclass(frozen=True, kw_only=True)
class LabeledSplit(Split):
    """How missing splits are divided off labelled examples, at random.

    Attributes:
        stratified: keep the proportions of labels in all splits.
        group: column of an example's group, such as a speaker, or a regular expression for the file names in a folder.
            No group is divided between splits.
        held_out: groups that are the test split, whatever split they were in; all other groups are for training.

    Raises:
        DataError: groups to hold out without `group`.
    """

    split_fractions: Sequence[float] = (0.8, 0.1, 0.1)
    stratified: bool = True
    group: str | None = None
    held_out: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_out and self.group is None:
            raise DataError(f"held_out={list(self.held_out)}: needs data.group, the column of an example's group")

    def drawn(self, labels: Sequence[str] | None, groups: Sequence[str], given: Sequence[str]) -> dict[str, Ints]:
        """Divides examples at random.

        Args:
            labels: the label of each training example; None for examples without one.
            groups: the group of each training example; all are empty if there are no groups.
            given: splits with their own examples.

        Returns:
            The indices of the training examples that stay for training, and of those in each other nonempty split.

        Raises:
            DataError: too few groups.
        """

        def choose(left: Ints, wanted: int, seed: int) -> Ints:
            generator = np.random.default_rng(seed)
            if any(groups):
                return _whole_groups([groups[int(row)] for row in left], wanted, generator)
            order = generator.permutation(len(left))
            if labels is None or not self.stratified:
                return order[:wanted]
            return _stratified([labels[int(row)] for row in left], order)[:wanted]

        return self._divided(len(groups), given, choose)

    def check_held_out(self, groups: Sequence[str]) -> frozenset[str]:
        """Returns the groups to hold out.

        Args:
            groups: the group of each example.

        Raises:
            DataError: there is no such group.
        """
        held_out, there = [str(name) for name in self.held_out], set(groups)
        for group in held_out:
            if group not in there:
                raise DataError(
                    f"held_out: there is no group {group!r}{did_you_mean(group, there)}; groups: "
                    f"{', '.join(sorted(there)[:20]) or 'none'}; data.group is their column"
                )
        return frozenset(held_out)


def _stratified(labels: Sequence[str], order: Ints) -> Ints:
    """Sorts places by their position within their label, from 0 to 1, so that the first of them are stratified."""
    by_label: dict[str, list[int]] = defaultdict(list)
    for index in map(int, order):
        by_label[labels[index]].append(index)
    placed = [
        ((place + 0.5) / len(indices), index) for indices in by_label.values() for place, index in enumerate(indices)
    ]
    return np.asarray([index for _, index in sorted(placed)], dtype=np.int64)


def _whole_groups(groups: Sequence[str], wanted: int, generator: np.random.Generator) -> Ints:
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    chosen: list[int] = []
    for number in generator.permutation(len(members)).tolist():
        group = members[sorted(members)[number]]
        if not chosen or abs(len(chosen) + len(group) - wanted) < abs(len(chosen) - wanted):
            chosen += group
    if len(chosen) == len(groups):
        raise DataError(
            f"{counted(len(members), 'group')} cannot be divided into splits; each division needs two or more groups"
        )
    return np.asarray(chosen, dtype=np.int64)


def borders(sizes: NDArray[np.int64], fractions: Sequence[float], *, whole: bool) -> list[int]:
    """Divides consecutive documents by position.

    Args:
        sizes: (documents,) such as the number of characters of each document.
        fractions: fraction of each split, in order; they sum to 1.
        whole: divide between documents alone: a document belongs to the split that contains its middle.

    Returns:
        (splits + 1) positions, from 0 to the total size.
    """
    ends, total = np.cumsum(sizes), int(sizes.sum())
    found = np.rint(np.concatenate([[0.0], np.cumsum(fractions)]) * total).astype(np.int64)
    if whole:
        found[-1] = total
        found = np.concatenate([[0], ends])[np.searchsorted(ends - sizes / 2, found)]
    found[-1] = total
    return found.tolist()


def split_of_name(name: str, fractions: Sequence[float]) -> str:
    """Assigns a name to "train", "validation" or "test" by its hash, in these proportions."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
    return "train" if place < fractions[0] else "validation" if place < fractions[0] + fractions[1] else "test"
