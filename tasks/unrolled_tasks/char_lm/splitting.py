"""Dividing a text into training, validation and test splits by position, without loading it into memory."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from unrolled.training.data.base import DataError
from unrolled.training.data.sources import Source
from unrolled.training.data.splitting import Split, borders
from unrolled.wording import counted
from unrolled_tasks.char_lm.sources import Document

Documents = Iterator[Document]


def split_text(source: Source[Document], split: Split, concatenate: bool) -> dict[str, Callable[[], Documents]]:
    """Returns a function for each nonempty split that opens its documents.

    Args:
        source: its own validation and test documents are used unchanged.
        split: fractions for training, validation and test; those of splits without their own documents are
            scaled to sum to one and divide the training documents, in this order.
        concatenate: divide anywhere, also within a document; otherwise each document belongs to the split that
            contains its middle.

    Raises:
        DataError: an empty text, or a split with a fraction above 0 that would be empty.
    """
    given = set(source.splits) - {"train"}
    shares = {name: share for name, share in split.fractions.items() if name not in given}
    wanted = {name: share / sum(shares.values()) for name, share in shares.items() if share > 0}
    splits: dict[str, Callable[[], Documents]] = {}
    if list(wanted) == ["train"]:
        splits["train"] = partial(source.read, "train")
    elif wanted:
        sizes = np.fromiter((sum(map(len, pieces)) for pieces in source.read("train")), dtype=np.int64)
        found = borders(sizes, list(wanted.values()), whole=not concatenate)
        for name, (start, stop) in zip(wanted, pairwise(found), strict=True):
            if start == stop:
                raise DataError(f"{source}: {_nothing_left(name, sizes, wanted, concatenate)}")
            splits[name] = partial(_within, source, sizes, start, stop)
    return splits | {name: partial(source.read, name) for name in source.splits if name != "train"}


def _within(source: Source[Document], sizes: NDArray[np.int64], start: int, stop: int) -> Documents:
    """Yields the training documents between two positions, with the first and last truncated there."""
    begin = 0
    for pieces, size in zip(source.read("train"), sizes.tolist(), strict=True):
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


def _nothing_left(split: str, sizes: NDArray[np.int64], shares: dict[str, float], concatenate: bool) -> str:
    total, asked = int(sizes.sum()), ", ".join(f"{name} {share:.3g}" for name, share in shares.items())
    if not total:
        return "the training text is empty"
    if concatenate:
        return (
            f"a text of {counted(total, 'character')} is too short to be split into {asked}: nothing is left for "
            f"{split}"
        )
    return (
        f"{counted(len(sizes), 'document')} of {counted(total, 'character')} cannot be split into {asked}: "
        f"no whole document is left for {split}; set concatenate to split within documents, change split_fractions, "
        "or give the split its own text"
    )
