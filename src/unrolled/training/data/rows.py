"""Rows of tables and of data sets of `datasets`, by split, each with its place for messages."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.files import did_you_mean, find_files, stamps, suffix_of
from unrolled.training.data.hub import HubSplits
from unrolled.training.data.options import Patterns, SourceOptions
from unrolled.training.data.splitting import Split
from unrolled.training.data.tables import TABLES, read_table


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        values: the cells by column.
        place: file and line, or data set and number.
        file: the table; None for a data set.
    """

    values: Mapping[Any, Any]
    place: str
    file: Path | None = None

    def column(self, name: str | int, key: str) -> Any:
        """Returns a cell.

        Args:
            name: name of the column.
            key: the option that names it, for the message.

        Raises:
            DataError: there is no such column.
        """
        if name not in self.values:
            raise DataError(
                f"{self.place}: no column {name!r}{did_you_mean(str(name), self.values)}; the columns are "
                f"{', '.join(map(str, self.values)) or 'none'}. Set {key}"
            )
        return self.values[name]

    def text(self, name: str | int, key: str) -> str:
        """Returns a cell that contains text or nothing; see `column`."""
        text = self.column(name, key)
        if not isinstance(text, str | None):
            raise DataError(f"{self.place}: column {name!r} contains {text!r:.80}, not text")
        return text or ""


Readers = Mapping[str, Callable[[Path], Iterator[Row]]]


class TableRows:
    """Rows of files: .jsonl (.json, .ndjson), .tsv, .csv, .parquet or .conllu; all but .parquet also compressed.

    The first line of .tsv and .csv names the columns. In .tsv there is no quoting.

    Args:
        files: for each split, paths, folders or glob patterns, one or several.
        named: whether .tsv and .csv name their columns; otherwise these are numbers from 0.
        readers: how files of other kinds are read, by suffix, such as ".xml".
    """

    def __init__(self, files: Mapping[str, Patterns], *, named: bool = True, readers: Readers | None = None) -> None:
        self._files, self._named, self._readers = dict(files), named, dict(readers or {})

    def __str__(self) -> str:
        return ", ".join(str(patterns) for patterns in self._files.values())

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits with their own rows."""
        return tuple(self._files)

    def fingerprint(self) -> dict[str, Any]:
        """Returns plain data that differ whenever the rows do."""
        return {"named": self._named, **{split: stamps(self.paths(split)) for split in self.splits}}

    def read(self, split: str) -> Iterator[Row]:
        """Yields a split's rows.

        Raises:
            DataError: a file that does not exist or cannot be read.
        """
        for path in self.paths(split):
            reader = self._readers.get(suffix_of(path))
            yield from file_rows(path, named=self._named) if reader is None else reader(path)

    def paths(self, split: str) -> list[Path]:
        """Returns the files of a split."""
        return find_files(self._files[split], f"{split} files", suffixes=(*TABLES, *self._readers))


class HubRows:
    """Rows of a data set of `datasets`.

    Numbers of classes become their names, also within lists. Images and audio remain encoded: {"bytes", "path"}.

    Args:
        loaded: the data set.
        columns: the columns to read, if it has any of them; None for all.
    """

    def __init__(self, loaded: HubSplits, columns: Sequence[str] | None = None) -> None:
        self._loaded, self._columns = loaded, columns

    def __str__(self) -> str:
        return str(self._loaded)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits with their own rows."""
        return tuple(self._loaded.splits())

    def fingerprint(self) -> dict[str, Any]:
        """Returns plain data that differ whenever the rows do."""
        return self._loaded.fingerprint()

    def read(self, split: str) -> Iterator[Row]:
        """Yields a split's rows.

        Raises:
            DataError: the data set cannot be loaded.
        """
        rows: Any = self._loaded.splits()[split]
        features: Mapping[str, Any] = rows.features or {}  # unknown for some streamed data sets
        wanted = [name for name in self._columns or () if name in features]
        rows = rows.select_columns(wanted) if wanted else rows
        for name in wanted or features:
            if hasattr(features[name], "decode"):
                rows = rows.cast_column(name, type(features[name])(decode=False))
        named = {column: names for column, feature in features.items() if (names := _class_names(feature))}
        for number, row in enumerate(rows, start=1):
            values = {name: _named(value, named[name]) if name in named else value for name, value in row.items()}
            yield Row(values, f"{self}, {split} row {number}")


class MemoryRows:
    """Rows in memory.

    Args:
        rows: for each split that has its own, cells by column.
    """

    def __init__(self, rows: Mapping[str, Sequence[Mapping[Any, Any]]]) -> None:
        self._rows = dict(rows)

    def __str__(self) -> str:
        return "rows in memory"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits with their own rows."""
        return tuple(self._rows)

    def fingerprint(self) -> dict[str, Any]:
        """Returns plain data that differ whenever the rows do."""
        digests: dict[str, Any] = {}
        for split, rows in self._rows.items():
            digest = hashlib.sha256()
            for name, value in (cell for row in rows for cell in row.items()):
                digest.update(
                    repr((name, value.shape, value.dtype) if isinstance(value, Tensor) else (name, value)).encode()
                )
                digest.update(value.numpy().tobytes() if isinstance(value, Tensor) else b"")
            digests[split] = digest.hexdigest()
        return digests

    def read(self, split: str) -> Iterator[Row]:
        """Yields a split's rows."""
        return (Row(values, f"row {number}") for number, values in enumerate(self._rows[split]))


Rows = TableRows | HubRows | MemoryRows


def rows_of(
    origin: SourceOptions,
    columns: Sequence[str] | None = None,
    *,
    named: bool = True,
    readers: Readers | None = None,
) -> Rows:
    """Returns the rows of files or of a data set.

    Args:
        origin: files, a data set, or rows in memory.
        columns: see `HubRows`.
        named: see `TableRows`.
        readers: see `TableRows`.
    """
    if origin.rows is not None:
        return MemoryRows(origin.rows)
    if origin.dataset is not None:
        return HubRows(HubSplits(origin.dataset, origin.dataset_options or {}), columns)
    return TableRows(origin.patterns, named=named, readers=readers)


def file_rows(path: Path, *, named: bool = True) -> Iterator[Row]:
    """Yields the rows of a table; see `read_table`."""
    return (Row(values, place, path) for place, values in read_table(path, named=named))


def split_rows(
    origin: SourceOptions,
    split: Split,
    default: Sequence[Row] | None = None,
    *,
    readers: Readers | None = None,
) -> dict[str, list[Row]]:
    """Returns the rows of each split, divided where files or a data set have no split of their own.

    Args:
        origin: files or a data set.
        split: how missing splits are divided off the training rows: the last ones.
        default: rows instead of files or a data set.
        readers: see `TableRows`.

    Raises:
        DataError: there are no rows.
    """
    if default is not None:
        found = {"train": list(default)}
    else:
        rows = rows_of(origin, readers=readers)
        found = {name: list(rows.read(name)) for name in rows.splits}
    train = found.pop("train", [])
    places = split.last(len(train), list(found))
    divided = {name: [train[place] for place in indices] for name, indices in places.items()}
    splits = {name: divided.get(name, found.get(name, [])) for name in SPLITS}
    if not any(splits.values()):
        raise DataError("there are no rows in these files")
    return {name: rows for name, rows in splits.items() if rows}


def _class_names(feature: Any) -> Sequence[str] | None:
    return getattr(getattr(feature, "feature", feature), "names", None)


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
