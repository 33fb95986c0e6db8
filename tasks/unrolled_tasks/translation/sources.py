"""Sources of sentence pairs: CLDR phrases, tables, pairs of text files, data sets of the Hugging Face hub."""

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.files import find_files, read_lines, stamps
from unrolled.training.data.options import SourceOptions
from unrolled.training.data.rows import Row, rows_of
from unrolled.training.data.sources import RowSource, Source
from unrolled.training.data.tables import TABLES, is_table, normalize_whitespace
from unrolled_tasks.translation.phrases import Phrase, phrases, split_of

Column = str | int


class Pair(NamedTuple):
    """A sentence and its translation, with normalized whitespace. A side is empty if the source has no text.

    Attributes:
        source: sentence in the source language.
        target: sentence in the target language.
        kind: a class of phrases with separate scores; empty for none.
        place: file and line, for messages.
        others: further right targets, such as other pronunciations of a word.
    """

    source: str
    target: str
    kind: str = ""
    place: str = ""
    others: tuple[str, ...] = ()


class PhraseSource(Source[Pair]):
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

    def read(self, split: str) -> Iterator[Pair]:
        for phrase in self._phrases:
            if split_of(phrase, self._split_fractions) == split:
                yield Pair(phrase.source, phrase.target, phrase.kind)

    @cached_property
    def _phrases(self) -> list[Phrase]:
        return phrases(*self._options)


class TextPairSource(Source[Pair]):
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

    def read(self, split: str) -> Iterator[Pair]:
        """See `Source.read`.

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


def source_of(origin: SourceOptions, source: Column, target: Column) -> Source[Pair]:
    """Returns the source of pairs in tables, in two text files, or in a data set.

    A row contains both sides under the names of their columns, directly or within "translation". Tables without a line
    of names have column numbers, from 0.

    Args:
        origin: files or a data set.
        source: column, or key of "translation", to translate from.
        target: column or key to translate to.

    Raises:
        DataError: neither tables nor two text files, or files that do not exist.
    """
    if origin.dataset is not None:
        source, target = str(source), str(target)
        rows = rows_of(origin, (source, target, "translation"))
        return RowSource(rows, partial(pair_of, source=source, target=target), [source, target])
    listed = {split: [each] if isinstance(each, str) else list(each) for split, each in origin.patterns.items()}
    tables = [is_table(name) for names in listed.values() for name in names]
    if all(tables):
        rows = rows_of(origin, named=not isinstance(source, int))
        return RowSource(rows, partial(pair_of, source=source, target=target), [source, target])
    for split, names in listed.items():
        if any(tables) or len(names) != 2:
            find_files(names)  # reports a misspelt name of a table
            raise DataError(
                f"{split} files {', '.join(names)}: give tables ({', '.join(TABLES)}) or two text files, as "
                "[train.en, train.de]"
            )
    return TextPairSource(listed)


def pair_of(row: Row, source: Column, target: Column) -> Pair:
    """Returns the pair in a row, from two columns or from its "translation".

    Raises:
        DataError: a column is missing or contains no text.
    """
    inner = row.values.get("translation")
    if source not in row.values and isinstance(inner, Mapping):
        row = row._replace(values=inner)
    reads, writes = (row.text(name, f"data.{key}") for key, name in (("source", source), ("target", target)))
    return Pair(normalize_whitespace(reads), normalize_whitespace(writes), place=row.place)
