"""Pairs on their way from a source to tokens: on disk, so that memory doesn't bound a corpus, and read from it once."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unrolled_tasks.translation.sources import Pair

_SIDES = {"source": 0, "target": 1}


class PairStore:
    """Pairs in a file, or a range of them; read again at each iteration.

    Args:
        path: what `write_pairs` wrote.
        begin: the first of them.
        end: behind the last.
        kept: (end − begin,) bool, which of them count; all by default.
    """

    def __init__(self, path: Path, begin: int, end: int, kept: NDArray[np.bool_] | None = None) -> None:
        self._path, self._begin, self._end = path, begin, end
        self._kept = kept

    def __iter__(self) -> Iterator[Pair]:
        with self._path.open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                if number >= self._end:
                    return
                if number >= self._begin and (self._kept is None or self._kept[number - self._begin]):
                    yield Pair(*json.loads(line))

    def __len__(self) -> int:
        return self._end - self._begin if self._kept is None else int(self._kept.sum())

    def cut(self, count: int) -> tuple["PairStore", "PairStore"]:
        """All but the last `count`, and those."""
        middle = self._end - count
        return PairStore(self._path, self._begin, middle), PairStore(self._path, middle, self._end)

    def where(self, kept: Sequence[bool] | NDArray[np.bool_]) -> "PairStore":
        """Those for which it is true."""
        whole = np.ones(self._end - self._begin, dtype=bool) if self._kept is None else self._kept.copy()
        whole[whole] = kept
        return PairStore(self._path, self._begin, self._end, whole)


class Texts:
    """The sentences of one side, or of both, one side after the other.

    Args:
        pairs: where they stand.
        sides: "source", "target", or both.
    """

    def __init__(self, pairs: Iterable[Pair], *sides: str) -> None:
        self._pairs, self._places = pairs, [_SIDES[side] for side in sides]

    def __iter__(self) -> Iterator[str]:
        return (pair[place] for place in self._places for pair in self._pairs)


def write_pairs(path: Path, pairs: Iterable[Pair], *, lowercase: bool = False) -> PairStore:
    """Reads pairs once and keeps them in a file."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for pair in pairs:
            kept = pair._replace(source=pair.source.lower(), target=pair.target.lower()) if lowercase else pair
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")
            count += 1
    return PairStore(path, 0, count)
