"""Temporary storage of sentence pairs on disk, so that a source is read once and a corpus may exceed memory."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unrolled_tasks.translation.sources import Pair

_SIDES = {"source": 0, "target": 1}


class PairStore:
    """A range of the pairs in a file, read at each iteration.

    Args:
        path: a file of `write_pairs`.
        begin: index of the first pair.
        end: index after the last pair.
        mask: (end − begin,) bool, the selected pairs; all by default.
    """

    def __init__(self, path: Path, begin: int, end: int, mask: NDArray[np.bool_] | None = None) -> None:
        self._path, self._begin, self._end = path, begin, end
        self._mask = mask

    def __iter__(self) -> Iterator[Pair]:
        with self._path.open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                if number >= self._end:
                    return
                if number >= self._begin and (self._mask is None or self._mask[number - self._begin]):
                    yield stored_pair(json.loads(line))

    def __len__(self) -> int:
        return self._end - self._begin if self._mask is None else int(self._mask.sum())

    def where(self, condition: Sequence[bool] | NDArray[np.bool_]) -> "PairStore":
        """Returns the pairs for which the condition is true."""
        mask = np.ones(self._end - self._begin, dtype=bool) if self._mask is None else self._mask.copy()
        mask[mask] = condition
        return PairStore(self._path, self._begin, self._end, mask)


class Texts:
    """Iterates over the sentences of one side of pairs, or of both, one side after the other.

    Args:
        pairs: the pairs.
        sides: "source", "target", or both.
    """

    def __init__(self, pairs: Iterable[Pair], *sides: str) -> None:
        self._pairs, self._places = pairs, [_SIDES[side] for side in sides]

    def __iter__(self) -> Iterator[str]:
        return ((pair.source, pair.target)[place] for place in self._places for pair in self._pairs)


def stored_pair(row: Sequence[Any]) -> Pair:
    """Returns the pair that JSON stored as a list."""
    *fields, others = row
    return Pair(*fields, others=tuple(others))


def write_pairs(path: Path, pairs: Iterable[Pair], *, lowercase: bool = False) -> PairStore:
    """Writes pairs to a file."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for pair in pairs:
            file.write(json.dumps(_lowered(pair) if lowercase else pair, ensure_ascii=False) + "\n")
            count += 1
    return PairStore(path, 0, count)


def _lowered(pair: Pair) -> Pair:
    others = tuple(dict.fromkeys(other.lower() for other in pair.others))
    return pair._replace(source=pair.source.lower(), target=pair.target.lower(), others=others)
