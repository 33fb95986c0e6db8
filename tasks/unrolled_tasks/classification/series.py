"""Time series: .ts files of the UEA archive, and tables with a row for each step."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from unrolled.processing.frames import SeriesScaler
from unrolled.training.data.base import DataError
from unrolled.training.data.examples import Columns, Example
from unrolled.training.data.files import did_you_mean, read_lines, suffix_of
from unrolled.training.data.modalities import Modality
from unrolled.training.data.tables import read_table
from unrolled.wording import counted


class Series(Modality):
    """Time series whose channels are standardized by the training split's mean and deviation.

    Args:
        series: column of a table that identifies the series of a row; None: each file is one series.
        channels: columns of a table to read; None for all columns without another role.
        normalize: standardize by the training split.
    """

    reads: ClassVar[type] = SeriesScaler
    data: ClassVar[str] = "series"
    suffixes: ClassVar[tuple[str, ...]] = (".ts", ".csv", ".tsv", ".parquet")
    what: ClassVar[str] = "series (.ts, .csv, .tsv, .parquet)"

    def __init__(
        self, series: str | None = None, channels: Sequence[str] | None = None, normalize: bool = True
    ) -> None:
        self.series = series
        self.channels = None if channels is None else list(channels)
        self.normalize = normalize
        self._names: list[str] | None = self.channels

    def options(self) -> dict[str, Any]:
        return {"series": self.series, "channels": self.channels, "normalize": self.normalize}

    def open(self, example: Example) -> Tensor:
        source = example.source
        if isinstance(source, Path):
            source = self._steps([row for _, row in read_table(source)], Columns("", "", None), str(source))
        if not isinstance(source, Tensor):
            raise ValueError(f"its source is {source!r:.80}, not a series")
        if len(source) == 0:
            raise ValueError("the series has no steps")
        return source

    def fit(self, sources: Sequence[Tensor]) -> SeriesScaler:
        channels = sources[0].shape[1]
        names = self._names or [f"channel {number}" for number in range(channels)]
        extractor = SeriesScaler(names, [0.0] * channels, [1.0] * channels)
        for number, source in enumerate(sources):
            try:
                extractor(source)
            except ValueError as error:
                raise DataError(f"training series {number + 1}: {error}") from error
        return SeriesScaler.fit(sources, names, normalize=self.normalize)

    def read(self, source: Tensor, extractor: SeriesScaler) -> Tensor:
        return extractor(source)

    def steps(self, source: Tensor, extractor: SeriesScaler) -> int:
        return len(source)

    def file_examples(self, path: Path, columns: Columns) -> Iterable[Example] | None:
        """Returns the series of a .ts file, or of a table with a series or target column; None for other files."""
        if suffix_of(path) == ".ts":
            return ts_examples(path)
        if suffix_of(path) not in self.suffixes:
            return None
        _, row = next(iter(read_table(path)), ("", {}))
        named = columns.target in row if isinstance(columns.target, str) else True
        return self._table_examples(path, columns) if self.series is not None or named else None

    def _table_examples(self, path: Path, columns: Columns) -> Iterator[Example]:
        """Yields the series of a table with a row for each step, in the order of their first rows.

        Raises:
            DataError: a column is missing or has no numbers, or a target changes within a series.
        """
        rows = list(read_table(path))
        targets = [columns.target] if isinstance(columns.target, str) else list(columns.target)
        wanted = [("data.target", name) for name in targets]
        wanted += [("data.modality.series", self.series), ("data.group", columns.group)]
        for option, name in wanted:
            if rows and name is not None and name not in rows[0][1]:
                place, row = rows[0]
                names = ", ".join(map(str, row))
                raise DataError(
                    f"{place}: no column {name!r}{did_you_mean(name, row)}; the columns are {names}. Set {option}"
                )
        grouped: dict[Any, list[tuple[str, Mapping[str, Any]]]] = {}
        for place, row in rows:
            grouped.setdefault(row[self.series] if self.series else None, []).append((place, row))
        for name, members in grouped.items():
            place, first = members[0]
            for other, row in members:
                if any(row[target] != first[target] for target in targets):
                    which = f"series {name}" if self.series else "this file, read as one series,"
                    hint = "" if self.series else "; set data.modality.series to the column that identifies series"
                    raise DataError(f"{other}: the target of {which} changes; it was {first[targets[0]]} before{hint}")
            target = first[targets[0]] if isinstance(columns.target, str) else [first[name] for name in targets]
            group = str(first[columns.group]) if columns.group else ""
            steps = self._steps([row for _, row in members], columns, f"{place} on")
            yield Example(steps, target, group, f"{path}, series {name}" if self.series else str(path))

    def _steps(self, rows: Sequence[Mapping[str, Any]], columns: Columns, place: str) -> Tensor:
        targets = [columns.target] if isinstance(columns.target, str) else list(columns.target)
        others = {self.series, columns.group, *targets}
        if not rows:
            raise DataError(f"{place}: the series has no steps")
        names = self.channels or [name for name in rows[0] if name not in others]
        if self._names is None:
            self._names = names
        missing = next((name for name in self._names if name not in rows[0]), None)
        if missing is not None:
            raise DataError(
                f"{place}: no column {missing!r}{did_you_mean(missing, rows[0])}; set data.modality.channels"
            )
        steps = [[_number(row[name], name, place) for name in self._names] for row in rows]
        return torch.tensor(steps, dtype=torch.float64)


def _number(text: Any, name: str, place: str) -> float:
    try:
        return float("nan") if text is None or text == "" else float(text)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{place}: column {name!r} contains {text!r:.80}, not a number") from None


def ts_examples(path: Path) -> Iterator[Example]:
    """Yields the series of a .ts file of the UEA archive.

    Channels are separated by colons, steps by commas, and the class or number comes last.

    Raises:
        DataError: no data, time stamps, or an invalid line.
    """
    labelled, begun, channels = True, False, None
    for number, line in enumerate(read_lines(path), start=1):
        line = line.strip()
        if not begun:
            if re.match(r"@timestamps\s+true", line, re.IGNORECASE):
                raise DataError(f"{path}, line {number}: time stamps are not supported; resample the series first")
            if re.match(r"@(classlabel|targetlabel)\s+false", line, re.IGNORECASE):
                labelled = False
            begun = line.lower() == "@data"
            continue
        if not line:
            continue
        place = f"{path}, line {number}"
        fields = line.split(":")
        if not labelled or len(fields) < 2:
            raise DataError(f"{place}: a series without a class; it needs @classLabel true and a class at the end")
        columns = [_numbers(field, place) for field in fields[:-1]]
        if len({len(column) for column in columns}) != 1 or (channels or len(columns)) != len(columns):
            raise DataError(
                f"{place}: {counted(len(columns), 'channel')} of {', '.join(str(len(c)) for c in columns)} steps"
            )
        channels = len(columns)
        steps = torch.tensor(columns, dtype=torch.float64).T.contiguous()
        yield Example(steps, fields[-1].strip(), "", place)
    if channels is None:
        raise DataError(f"{path} has no series after @data")


def _numbers(field: str, place: str) -> list[float]:
    try:
        return [float("nan") if text.strip() == "?" else float(text) for text in field.split(",")]
    except ValueError as error:
        raise DataError(f"{place}: {error}") from None
