"""Series from the rows of a table, with a message that names the row where they are wrong."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unrolled.processing.series.times import Frequency, Time, infer_frequency, parse_time

_MISSING = ("", "nan", "na", "n/a", "null", "none")


@dataclass(frozen=True)
class SeriesColumns:
    """The columns of a table of series.

    Attributes:
        time: times: dates, dates with times, or numbers of steps.
        series: names of series; None if a table is one series.
        target: the numbers to forecast, one or several.
        past: numbers that are known until the forecast begins.
        future: numbers that are known beforehand, such as holidays or prices.
        static: numbers or names that belong to a series.
    """

    time: str = "time"
    series: str | None = None
    target: Sequence[str] = ("target",)
    past: Sequence[str] = ()
    future: Sequence[str] = ()
    static: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("target", "past", "future", "static"):
            value: Any = getattr(self, name)
            object.__setattr__(self, name, [value] if isinstance(value, str) else list(value or ()))
        names = [self.time, *([] if self.series is None else [self.series])]
        names += [*self.target, *self.past, *self.future, *self.static]
        twice = next((name for name in names if names.count(name) > 1), None)
        if not self.target or twice is not None:
            problem = "there is no target column" if twice is None else f"column {twice!r} has two roles"
            raise ValueError(f"{problem}; a column is one of time, series, target, past, future and static")

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments."""
        lists = {name: list(getattr(self, name)) for name in ("target", "past", "future", "static")}
        return {"time": self.time, "series": self.series, **lists}


@dataclass(frozen=True)
class TimeSeries:
    """A series at regular times. Missing numbers are NaN.

    Attributes:
        name: its name; "" for the only series of a table.
        start: the first time.
        values: (time, targets) float64.
        past: (time, past) float64.
        future: (time, future) float64.
        static: the cells of static columns.
        place: where its first row is, for messages.
    """

    name: str
    start: Time
    values: Tensor
    past: Tensor
    future: Tensor
    static: tuple[str, ...]
    place: str

    def __len__(self) -> int:
        return len(self.values)

    @property
    def title(self) -> str:
        """How messages call it: its name, or its place."""
        return f"series {self.name!r}" if self.name else f"the series of {self.place}"

    def until(self, end: int) -> "TimeSeries":
        """Return the first steps."""
        return replace(self, values=self.values[:end], past=self.past[:end], future=self.future[:end])

    @property
    def observed(self) -> int:
        """Number of steps up to the last one with an observed target; those after it are known of the future alone."""
        there = self.values.isfinite().any(-1).nonzero()
        return int(there[-1]) + 1 if len(there) else 0


@dataclass
class _Rows:
    place: str
    static: tuple[str, ...]
    times: list[Time] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    numbers: list[list[float]] = field(default_factory=list)


def read_series(
    rows: Iterable[tuple[str, Mapping[Any, Any]]], columns: SeriesColumns, frequency: Frequency | None = None
) -> tuple[list[TimeSeries], Frequency]:
    """Return the series of a table, by name in the order of their first rows, and their frequency.

    Rows of several series may be interleaved. Steps without a row are missing.

    Args:
        rows: places, such as "sales.csv, line 3", and cells by column.
        columns: the columns.
        frequency: the time between two steps; None to infer it.

    Raises:
        ValueError: a missing column, a cell that is no time or number, times that don't ascend, two rows of a series at
            one time, a time between two steps, or no rows.
    """
    by_name: dict[str, _Rows] = {}
    for place, cells in rows:
        _add_row(by_name, place, cells, columns)
    if not by_name:
        raise ValueError("there are no rows, so there is no series")
    if frequency is None:
        frequency = infer_frequency([found.times for found in by_name.values()])
    return [_regular(name, found, columns, frequency) for name, found in by_name.items()], frequency


def _add_row(by_name: dict[str, _Rows], place: str, cells: Mapping[Any, Any], columns: SeriesColumns) -> None:
    numeric = [*columns.target, *columns.past, *columns.future]
    for name in (columns.time, *([] if columns.series is None else [columns.series]), *numeric, *columns.static):
        if name not in cells:
            raise ValueError(f"{place}: no column {name!r}; the columns are {', '.join(map(str, cells)) or 'none'}")
    name = "" if columns.series is None else str(cells[columns.series])
    static = tuple(str(cells[column]) for column in columns.static)
    found = by_name.setdefault(name, _Rows(place, static))
    if static != found.static:
        raise ValueError(
            f"{place}: static columns of series {name!r} are {', '.join(static)}, but {', '.join(found.static)} at "
            f"{found.place}; what changes is a past or a future column"
        )
    try:
        time = parse_time(cells[columns.time])
    except ValueError as error:
        raise ValueError(f"{place}: column {columns.time!r}: {error}") from None
    if found.times:
        before = found.times[-1]
        of = f" of series {name!r}" if name else ""
        if isinstance(time, int) != isinstance(before, int):
            raise ValueError(f"{place}: {time} is not a time of the same kind as {before} before it")
        if time == before:
            raise ValueError(
                f"{place}: the time {time}{of} is also that of {found.places[-1]}; keep one of both rows"
                + ("" if columns.series else ", or name the column of series: data.series=NAME")
            )
        if time < before:  # pyright: ignore[reportOperatorIssue]
            raise ValueError(
                f"{place}: the time {time}{of} is before {before} of {found.places[-1]}; sort the rows by time"
            )
    found.times.append(time)
    found.places.append(place)
    found.numbers.append([_number(cells[column], column, place) for column in numeric])


def _number(cell: Any, column: str, place: str) -> float:
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in _MISSING):
        return math.nan
    try:
        number = float(cell)
    except (TypeError, ValueError):
        raise ValueError(
            f"{place}: column {column!r} contains {cell!r:.40}, not a number; leave missing numbers empty"
        ) from None
    if math.isinf(number):
        raise ValueError(f"{place}: column {column!r} contains {cell!r:.40}; numbers must be finite, or missing")
    return number


def _regular(name: str, found: _Rows, columns: SeriesColumns, frequency: Frequency) -> TimeSeries:
    """Put the rows of a series at their steps."""
    start, steps = found.times[0], list(_steps(found, frequency))
    numbers = torch.full((steps[-1] + 1, len(found.numbers[0])), torch.nan, dtype=torch.float64)
    numbers[steps] = torch.tensor(found.numbers, dtype=torch.float64)
    values, past, future = numbers.split([len(columns.target), len(columns.past), len(columns.future)], -1)
    return TimeSeries(name, start, values, past, future, found.static, found.place)


_LONGEST_GAP = 1_000_000  # steps without a row; a wrong year must not fill the memory


def _steps(found: _Rows, frequency: Frequency) -> Iterator[int]:
    step = 0
    for time, place in zip(found.times, found.places, strict=True):
        now = frequency.steps(found.times[0], time)
        if now is None or (found.times[0] != time and now <= step):
            raise ValueError(
                f"{place}: the time {time} is not a whole number of steps of {frequency} after {found.times[0]}; give "
                "the frequency if it is another one (data.frequency='1 day'), or round the times"
            )
        if now - step > _LONGEST_GAP:
            raise ValueError(f"{place}: the time {time} is {now - step:,} steps after the row before it")
        step = now
        yield now
