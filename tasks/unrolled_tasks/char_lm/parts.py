"""A text cut into training, validation and test parts, by position, without ever holding it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from unrolled.training.data.base import PARTS, DataError
from unrolled.wording import counted
from unrolled_tasks.char_lm.sources import Source

Documents = Iterator[Iterable[str]]


def cut_into_parts(source: Source, cut: Sequence[float], joined: bool) -> dict[str, Callable[[], Documents]]:
    """What opens the documents of each part; parts that get nothing are left out.

    Args:
        source: its own validation and test documents are taken as they are.
        cut: fractions for training, validation and test; of parts without documents of their own they are scaled up to
            one and cut from the training documents, in this order.
        joined: cut anywhere, also within a document; otherwise each document goes to the part in which its middle lies.

    Raises:
        DataError: an empty text, or a part that is asked for and gets nothing.
    """
    given = set(source.parts) - {"train"}
    shares = {part: share for part, share in zip(PARTS, cut, strict=True) if part not in given}
    wanted = {part: share / sum(shares.values()) for part, share in shares.items() if share > 0}
    parts: dict[str, Callable[[], Documents]] = {}
    if list(wanted) == ["train"]:
        parts["train"] = partial(source.documents, "train")
    elif wanted:
        sizes = np.fromiter((sum(map(len, pieces)) for pieces in source.documents("train")), dtype=np.int64)
        borders = _borders(sizes, list(wanted.values()), joined)
        for part, (start, stop) in zip(wanted, pairwise(borders), strict=True):
            if start == stop:
                raise DataError(f"{source}: {_nothing_left(part, sizes, wanted, joined)}")
            parts[part] = partial(_within, source, sizes, start, stop)
    return parts | {part: partial(source.documents, part) for part in source.parts if part != "train"}


def _borders(sizes: NDArray[np.int64], shares: Sequence[float], joined: bool) -> list[int]:
    """(parts + 1) positions in characters."""
    ends = np.cumsum(sizes)
    total = int(sizes.sum())
    borders = np.rint(np.concatenate([[0.0], np.cumsum(shares)]) * total).astype(np.int64)
    borders[-1] = total
    if not joined:
        # The documents whose middle lies before a border come before it.
        before = np.searchsorted(ends - sizes / 2, borders)
        borders = np.concatenate([[0], ends])[before]
        borders[-1] = total
    return borders.tolist()


def _within(source: Source, sizes: NDArray[np.int64], start: int, stop: int) -> Documents:
    """The training documents between two positions, the first and last of them cut there."""
    begin = 0
    for pieces, size in zip(source.documents("train"), sizes.tolist(), strict=True):
        if begin >= stop:
            return
        if begin + size > start:
            yield _sliced(pieces, start - begin, stop - begin)
        begin += size


def _sliced(pieces: Iterable[str], start: int, stop: int) -> Iterator[str]:
    begin = 0
    for piece in pieces:
        if begin >= stop:
            return
        yield piece[max(start - begin, 0) : stop - begin]
        begin += len(piece)


def _nothing_left(part: str, sizes: NDArray[np.int64], shares: dict[str, float], joined: bool) -> str:
    total, asked = int(sizes.sum()), ", ".join(f"{name} {share:.3g}" for name, share in shares.items())
    if not total:
        return "the training text is empty"
    if joined:
        return (
            f"a text of {counted(total, 'character')} is too short to be cut into {asked}: nothing is left for {part}"
        )
    return (
        f"{counted(len(sizes), 'document')} of {counted(total, 'character')} cannot be cut into {asked}: "
        f"no whole one is left for {part}; "
        "set joined to cut within documents, change cut, or give the part its own text"
    )
