"""Rows of tables and of data sets of `datasets`, by split, each with its place for messages."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.files import did_you_mean, find_files
from unrolled.training.data.hub import HubSplits
from unrolled.training.data.options import Patterns, SourceOptions
from unrolled.training.data.splitting import Split
from unrolled.training.data.tables import TABLES, read_table


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        values: the cells by column.
        place: file and line, or data set and number.
    """

    values: Mapping[str, Any]
    place: str

    def column(self, name: str, key: str) -> Any:
        """Returns a cell.

        Args:
            name: name of the column.
            key: the option that names it, for the message.

        Raises:
            DataError: there is no such column.
        """
        if name not in self.values:
            raise DataError(
                f"{self.place}: no column {name!r}{did_you_mean(name, self.values)}; the columns are "
                f"{', '.join(map(str, self.values)) or 'none'}. Set {key}"
            )
        return self.values[name]


def table_rows(files: Mapping[str, Patterns]) -> dict[str, Iterator[Row]]:
    """Returns the rows of each split's files: paths, folders or patterns."""
    return {split: _rows(split, patterns) for split, patterns in files.items()}


def split_rows(origin: SourceOptions, split: Split, default: Sequence[Row] | None = None) -> dict[str, list[Row]]:
    """Returns the rows of each split, divided where files or a data set have no split of their own.

    Args:
        origin: files or a data set.
        split: how missing splits are divided off the training rows: the last ones.
        default: rows instead of files or a data set.

    Raises:
        DataError: there are no rows.
    """
    if default is not None:
        found = {"train": list(default)}
    elif origin.dataset is not None:
        found = {
            name: list(rows) for name, rows in hub_rows(HubSplits(origin.dataset, origin.dataset_options or {})).items()
        }
    else:
        found = {name: list(rows) for name, rows in table_rows(origin.patterns).items()}
    train = found.pop("train", [])
    places = split.last(len(train), list(found))
    divided = {name: [train[place] for place in indices] for name, indices in places.items()}
    splits = {name: divided.get(name, found.get(name, [])) for name in SPLITS}
    if not any(splits.values()):
        raise DataError("there are no rows in these files")
    return {name: rows for name, rows in splits.items() if rows}


def _rows(split: str, patterns: Patterns) -> Iterator[Row]:
    for path in find_files(patterns, f"{split} files", suffixes=TABLES):
        yield from (Row(row, place) for place, row in read_table(path))


def hub_rows(splits: HubSplits) -> dict[str, Iterator[Row]]:
    """Returns the rows of each split of a data set. Numbers of classes become their names, also within lists."""
    return {split: _hub_rows(f"{splits}, {split}", rows) for split, rows in splits.splits().items()}


def _hub_rows(name: str, rows: Any) -> Iterator[Row]:
    named = {column: names for column, feature in (rows.features or {}).items() if (names := _class_names(feature))}
    for number, row in enumerate(rows, start=1):
        named_row = {
            column: _named(value, named[column]) if column in named else value for column, value in row.items()
        }
        yield Row(named_row, f"{name} row {number}")


def _class_names(feature: Any) -> Sequence[str] | None:
    return getattr(getattr(feature, "feature", feature), "names", None)


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
