"""Times of a series: parsing, the frequency that a series has, and what a calendar says of a time."""

import calendar
import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

Time = datetime | int
_SECONDS = {"week": 604_800, "day": 86_400, "hour": 3600, "minute": 60, "second": 1}
_MONTHS = {"year": 12, "quarter": 3, "month": 1}
_YEAR = 365.2425 * 86_400


class Frequency(NamedTuple):
    """The time from one step of a series to the next.

    Attributes:
        length: number of units.
        unit: "second", "month", or "step" for series that count their steps.
    """

    length: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> "Frequency":
        """Parse a text such as "1 hour", "15 minutes", "month" or "1 step".

        Raises:
            ValueError: another text.
        """
        number, _, name = text.strip().rpartition(" ")
        name = name.removesuffix("s")
        units = {**dict.fromkeys(_SECONDS, "second"), **dict.fromkeys(_MONTHS, "month"), "step": "step"}
        if name not in units or not (number or "1").isdecimal() or int(number or 1) < 1:
            raise ValueError(
                f"{text!r} is not a frequency; it is a number and one of {', '.join(units)}, such as '1 hour'"
            )
        return cls(int(number or 1) * (_SECONDS | _MONTHS).get(name, 1), units[name])

    def __str__(self) -> str:
        sizes: dict[str, int] = {"second": _SECONDS, "month": _MONTHS, "step": {"step": 1}}[self.unit]
        name, size = next((name, size) for name, size in sizes.items() if self.length % size == 0)
        number = self.length // size
        return f"{number} {name}{'s' if number > 1 else ''}"

    def after(self, start: Time, steps: int) -> Time:
        """Return the time that is a number of steps after another one."""
        if isinstance(start, int):
            return start + steps * self.length
        if self.unit == "second":
            return start + timedelta(seconds=steps * self.length)
        months = start.year * 12 + start.month - 1 + steps * self.length
        year, month = divmod(months, 12)
        last = calendar.monthrange(year, month + 1)[1]
        day = last if start.day == calendar.monthrange(start.year, start.month)[1] else min(start.day, last)
        return start.replace(year=year, month=month + 1, day=day)

    def steps(self, start: Time, end: Time) -> int | None:
        """Return the number of steps between two times; None if it isn't whole."""
        if isinstance(start, int) or isinstance(end, int):
            distance: float = end - start if isinstance(start, int) and isinstance(end, int) else math.nan
        elif self.unit == "second":
            distance = (end - start).total_seconds()
        else:
            distance = (end.year - start.year) * 12 + end.month - start.month
        if distance % self.length != 0:
            return None
        steps = int(distance // self.length)
        return steps if self.after(start, steps) == end else None

    @property
    def season(self) -> int:
        """The usual number of steps of a season: a day of hours, a week of days, a year of months; 1 if unknown."""
        if self.unit == "month":
            return max(1, 12 // self.length)
        if self.unit == "second" and self.length < _SECONDS["day"]:
            return max(1, _SECONDS["day"] // self.length)
        if self.unit == "second":
            return {_SECONDS["day"]: 7, _SECONDS["week"]: 52}.get(self.length, 1)
        return 1

    def calendar_size(self) -> int:
        """Return the number of features of `calendar_of`."""
        return len(self.calendar_of(datetime(2000, 1, 1)))

    def calendar_of(self, time: Time) -> list[float]:
        """Return sine and cosine of the time of day, the day of the week and the day of the year, if they vary."""
        if isinstance(time, int) or self.unit == "step":
            return []
        seconds = self.length if self.unit == "second" else self.length * _YEAR / 12
        midnight = time.replace(hour=0, minute=0, second=0, microsecond=0)
        of_day = (time - midnight).total_seconds() / _SECONDS["day"]
        of_year = (time - midnight.replace(month=1, day=1)).total_seconds() / _YEAR
        phases = [of_day] * (seconds < _SECONDS["day"])
        phases += [(time.weekday() + of_day) / 7] * (seconds < _SECONDS["week"])
        phases += [of_year] * (seconds < 0.99 * _YEAR)
        return [wave(2 * math.pi * phase) for phase in phases for wave in (math.sin, math.cos)]


def parse_time(value: Any) -> Time:
    """Convert a cell to a time: a whole number, a date, or a date and time in ISO 8601, also with slashes.

    A time zone is converted to UTC.

    Raises:
        ValueError: another value.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, str):
        text = value.strip()
        if text.lstrip("-").isdecimal() and len(text) < 8:  # eight digits are a date: 20240131
            return int(text)
        try:
            value = datetime.fromisoformat(text.replace("/", "-"))
        except ValueError:
            raise ValueError(
                f"{value!r:.40} is not a time; times are dates such as 2024-01-31, dates with times such as "
                "2024-01-31 14:00, or whole numbers of steps"
            ) from None
    if not isinstance(value, datetime):
        raise ValueError(f"{value!r:.40} is not a time, but {type(value).__name__}")
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo is not None else value


def infer_frequency(series: Sequence[Sequence[Time]]) -> Frequency:
    """Return the most common time from one step to the next over several series with ascending times.

    Months are recognized by equal days, or last days, of months.

    Raises:
        ValueError: no series has two times, or some count steps and others have dates.
    """
    kinds = {type(time) for times in series for time in times}
    if len(kinds) > 1:
        raise ValueError("some times are numbers of steps and others are dates; use one of both")
    pairs = [pair for times in series for pair in pairwise(times)]
    if not pairs:
        raise ValueError(
            "no series has two steps, so the frequency is unknown; give it, such as data.frequency='1 day'"
        )
    if kinds == {int}:
        return Frequency(_most_common([later - earlier for earlier, later in pairs]), "step")  # pyright: ignore
    dates = [(a, b) for a, b in pairs if isinstance(a, datetime) and isinstance(b, datetime)]
    monthly = Frequency(1, "month")
    months = [monthly.steps(earlier, later) for earlier, later in dates]
    if all(months):
        return Frequency(_most_common([m for m in months if m is not None]), "month")
    seconds = _most_common([round((later - earlier).total_seconds()) for earlier, later in dates])
    return Frequency(max(1, seconds), "second")


def _most_common(steps: Sequence[int]) -> int:
    """Return the most common number, the least of several."""
    counts = Counter(steps)
    return min(counts, key=lambda step: (-counts[step], step))
