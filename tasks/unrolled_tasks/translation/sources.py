"""Sources of sentence pairs: CLDR phrases, tables, pairs of text files, data sets of the Hugging Face hub."""

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.files import did_you_mean, find_files, read_lines, stamps
from unrolled.training.data.hub import HubSplits
from unrolled.training.data.tables import TABLES, is_table, normalize_whitespace, read_table
from unrolled_tasks.translation.phrases import Phrase, phrases, split_of

Column = str | int
Patterns = str | Sequence[str]


class Pair(NamedTuple):
    """A sentence and its translation, with normalized whitespace. A side is empty if the source has no text.

    Attributes:
        source: sentence in the source language.
        target: sentence in the target language.
        kind: a class of phrases with separate scores; empty for none.
        place: file and line, for messages.
    """

    source: str
    target: str
    kind: str = ""
    place: str = ""


class Source(ABC):
    """Sentence pairs for training, and optionally for validation and test."""

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The splits with their own pairs: "train" and any other of SPLITS."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Returns plain data that differ whenever the pairs do."""

    @abstractmethod
    def pairs(self, split: str) -> Iterator[Pair]:
        """Yields a split's pairs, in a fixed order."""


class PhraseSource(Source):
    """CLDR phrases, assigned to splits by a hash of the source phrase.

    Args:
        source: locale to translate from.
        target: locale to translate to.
        count: maximum number of phrases.
        seed: seed of the draws.
        split_fractions: fractions for training, validation and test.
    """

    def __init__(self, source: str, target: str, count: int, seed: int, split_fractions: Sequence[float]) -> None:
        self._options = (source, target, count, seed)
        self._split_fractions = (split_fractions[0], split_fractions[1], split_fractions[2])

    def __str__(self) -> str:
        return f"phrases in {self._options[0]} and {self._options[1]}"

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(split for split, share in zip(SPLITS, self._split_fractions, strict=True) if share > 0)

    def fingerprint(self) -> dict[str, Any]:
        try:
            packages = [importlib.metadata.version(name) for name in ("babel", "num2words")]
        except importlib.metadata.PackageNotFoundError as error:
            raise DataError(f"phrases need {error.name}: pip install 'unrolled[text]'") from None
        return {"options": self._options, "split_fractions": self._split_fractions, "packages": packages}

    def pairs(self, split: str) -> Iterator[Pair]:
        for phrase in self._phrases:
            if split_of(phrase, self._split_fractions) == split:
                yield Pair(phrase.source, phrase.target, phrase.kind)

    @cached_property
    def _phrases(self) -> list[Phrase]:
        return phrases(*self._options)


class TableSource(Source):
    """Files with a pair in each row: .jsonl (.json, .ndjson), .tsv, .csv or .parquet; all but the last also compressed.

    A row of JSON contains both sides under the names of their columns, directly or within "translation". The first line
    of .tsv and .csv names the columns; with column numbers, from 0, a file has no such line. In .tsv there is no
    quoting.

    Args:
        files: for each split, paths, folders or glob patterns, one or several.
        source: column to translate from.
        target: column to translate to.
    """

    def __init__(self, files: Mapping[str, Patterns], source: Column, target: Column) -> None:
        self._files, self._columns = dict(files), (source, target)

    def __str__(self) -> str:
        return ", ".join(str(patterns) for patterns in self._files.values())

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._files)

    def fingerprint(self) -> dict[str, Any]:
        return {"columns": self._columns, **{split: stamps(self._paths(split)) for split in self.splits}}

    def pairs(self, split: str) -> Iterator[Pair]:
        """See `Source.pairs`.

        Raises:
            DataError: a file that does not exist, cannot be read or lacks a column.
        """
        for path in self._paths(split):
            for place, row in read_table(path, named=not isinstance(self._columns[0], int)):
                yield pair_of(row, *self._columns, place)

    def _paths(self, split: str) -> list[Path]:
        return find_files(self._files[split], f"{split} files", suffixes=TABLES)


class TextPairSource(Source):
    """Two text files whose n-th lines are translations of each other.

    Args:
        files: for each split, the file (or pattern of files) to translate from and that to translate to.
    """

    def __init__(self, files: Mapping[str, Sequence[str]]) -> None:
        self._files = {split: tuple(sides) for split, sides in files.items()}

    def __str__(self) -> str:
        return ", ".join(" and ".join(sides) for sides in self._files.values())

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._files)

    def fingerprint(self) -> dict[str, Any]:
        return {split: [stamps(paths) for paths in self._paths(split)] for split in self.splits}

    def pairs(self, split: str) -> Iterator[Pair]:
        """See `Source.pairs`.

        Raises:
            DataError: a file that does not exist or cannot be read, or files with different numbers of lines.
        """
        for paths in zip(*self._paths(split), strict=True):
            for number, (source, target) in enumerate(zip_longest(*map(read_lines, paths)), start=1):
                if source is None or target is None:
                    counts = " and ".join(f"{path} has {sum(1 for _ in read_lines(path))}" for path in paths)
                    raise DataError(f"{counts} lines; each line must be the translation of the same line in the other")
                yield Pair(
                    normalize_whitespace(source), normalize_whitespace(target), place=f"{paths[0]}, line {number}"
                )

    def _paths(self, split: str) -> list[list[Path]]:
        found = [find_files(side, f"{split} files") for side in self._files[split]]
        if len(found[0]) != len(found[1]):
            raise DataError(f"{' and '.join(self._files[split])} match {len(found[0])} and {len(found[1])} files")
        return found


class HubSource(Source):
    """A data set of `datasets`, with a column for each language or a column "translation" with both.

    Args:
        dataset: see `HubSplits`.
        options: see `HubSplits`.
        source: column, or key of "translation", to translate from.
        target: column or key to translate to.
    """

    def __init__(self, dataset: str, options: Mapping[str, Any], source: Column, target: Column) -> None:
        self._splits, self._columns = HubSplits(dataset, options), (str(source), str(target))

    def __str__(self) -> str:
        return str(self._splits)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._splits.splits())

    def fingerprint(self) -> dict[str, Any]:
        return {"columns": self._columns, **self._splits.fingerprint()}

    def pairs(self, split: str) -> Iterator[Pair]:
        """See `Source.pairs`.

        Raises:
            DataError: there are no such columns.
        """
        rows = self._splits.splits()[split]
        if rows.features:  # unknown for some streamed data sets
            wanted = [name for name in (*self._columns, "translation") if name in rows.features]
            rows = rows.select_columns(wanted) if wanted else rows
        for number, row in enumerate(rows, start=1):
            yield pair_of(row, *self._columns, f"{self}, {split} row {number}")


def source_of_files(given: Mapping[str, Patterns], source: Column, target: Column) -> TableSource | TextPairSource:
    """Returns the source for files: tables, or two paths of text files.

    Raises:
        DataError: neither tables nor two text files, or files that do not exist.
    """
    listed = {split: [each] if isinstance(each, str) else list(each) for split, each in given.items()}
    tables = [is_table(name) for names in listed.values() for name in names]
    if all(tables):
        return TableSource(given, source, target)
    for split, names in listed.items():
        if any(tables) or len(names) != 2:
            find_files(names)  # reports a misspelt name of a table
            raise DataError(
                f"{split} files {', '.join(names)}: give tables ({', '.join(TABLES)}) or two text files, as "
                "[train.en, train.de]"
            )
    return TextPairSource(listed)


def pair_of(row: Mapping[Any, Any], source: Column, target: Column, place: str) -> Pair:
    """Returns the pair in a row, from two columns or from its "translation".

    Raises:
        DataError: a column is missing or contains no text.
    """
    inner = row.get("translation")
    if source not in row and isinstance(inner, Mapping):
        row = inner
    sides: list[str] = []
    for side, name in (("source", source), ("target", target)):
        if name not in row:
            names = ", ".join(map(str, row)) or "none"
            raise DataError(
                f"{place}: no column {name!r}{did_you_mean(str(name), row)}; the columns are {names}. Set data.{side}"
            )
        text = row[name]
        if not isinstance(text, str | None):
            raise DataError(f"{place}: column {name!r} contains {text!r:.80}, not text")
        sides.append(normalize_whitespace(text or ""))
    return Pair(*sides, place=place)
