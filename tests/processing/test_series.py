"""Times, tables of series and their transform."""

import math
from datetime import datetime, timedelta
from typing import Any

import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled import Frequency, SeriesColumns, SeriesTransform, TimeSeries, build_processor
from unrolled.processing.series.table import read_series
from unrolled.processing.series.times import infer_frequency, parse_time
from unrolled.processing.transform import Processor

PANDAS = {
    "1 hour": "h",
    "15 minutes": "15min",
    "1 day": "D",
    "1 week": "7D",
    "1 month": "MS",
    "1 quarter": "QS",
    "2 months": "2ME",
    "1 year": "YE",
}


@pytest.mark.parametrize("text", PANDAS)
def test_frequencies_are_inferred_and_steps_are_those_of_pandas(text: str) -> None:
    times = [time.to_pydatetime() for time in pandas.date_range("2019-11-01", periods=40, freq=PANDAS[text])]

    found = infer_frequency([[*times[:5], *times[7:]]])  # with a gap

    assert str(found) == text
    assert Frequency.parse(text) == found
    assert [found.after(times[0], step) for step in range(40)] == times
    assert [found.steps(times[0], time) for time in times] == list(range(40))
    assert found.steps(times[0], times[1] + timedelta(seconds=1)) is None


@given(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), st.integers(0, 500), st.integers(1, 40))
def test_steps_are_the_inverse_of_after(start: datetime, steps: int, length: int) -> None:
    for unit in ("second", "month"):
        if unit == "month" and start.day > 28:
            continue
        frequency = Frequency(length, unit)
        assert frequency.steps(start, frequency.after(start, steps)) == steps


def test_seasons_and_calendars() -> None:
    seasons = {"hour": 24, "day": 7, "month": 12, "quarter": 4, "15 minutes": 96, "week": 52, "year": 1, "3 steps": 1}
    assert {text: Frequency.parse(text).season for text in seasons} == seasons
    six = Frequency.parse("hour").calendar_of(datetime(2024, 1, 1, 6))  # a Monday
    assert six == pytest.approx([1, 0, math.sin(math.pi / 14), math.cos(math.pi / 14), 0, 1], abs=5e-3)
    assert Frequency.parse("month").calendar_size() == 2
    assert Frequency.parse("step").calendar_size() == 0


def test_times_of_many_kinds() -> None:
    day = datetime(2024, 1, 31)
    assert [parse_time(t) for t in ("2024-01-31", "2024/01/31", "20240131", day.date(), day)] == [day] * 5
    assert parse_time("2024-01-31T02:00:00+02:00") == day
    assert (parse_time("17"), parse_time(17)) == (17, 17)
    for wrong in ("soon", True, 1.5, None):
        with pytest.raises(ValueError, match="is not a time"):
            parse_time(wrong)


def table(*rows: Any, names: str = "t,y") -> list[tuple[str, dict[str, Any]]]:
    keys = names.split(",")
    return [(f"x.csv, line {n}", dict(zip(keys, row, strict=True))) for n, row in enumerate(rows, start=2)]


PLAIN = SeriesColumns(time="t", target=("y",))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("2024-01-01", "1"), ("2024-01-01", "2")], r"line 3: the time .* is also that of x.csv, line 2"),
        (
            [("2024-01-02", "1"), ("2024-01-01", "2")],
            r"line 3: the time .* is before .* of x.csv, line 2; sort the rows",
        ),
        ([("1", "1"), ("2", "2"), ("3", "three")], r"line 4: column 'y' contains 'three', not a number"),
        ([("1", "1"), ("2", "inf")], r"line 3: column 'y' contains 'inf'; numbers must be finite"),
        ([("1", "1"), ("noon", "2")], r"line 3: column 't': 'noon' is not a time"),
        ([("1", "1"), ("2024-01-01", "2")], r"line 3: .* is not a time of the same kind as 1"),
        ([("2024-01-01", "1")], "no series has two steps"),
        ([], "there are no rows"),
        (
            [("2024-01-01", "1"), ("2024-01-02", "2"), ("2024-01-03", "2"), ("2024-01-03 07:00", "2")],
            r"line 5: the time 2024-01-03 07:00:00 is not a whole number of steps of 1 day",
        ),
        ([("1", "1"), ("2", "1"), ("3", "1"), ("99999999", "1")], r"line 5: .*"),
    ],
)
def test_wrong_rows_are_named(rows: list[Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_series(table(*rows), PLAIN)


def test_columns_are_checked() -> None:
    with pytest.raises(ValueError, match=r"line 2: no column 'z'; the columns are t, y"):
        read_series(table(("1", "1")), SeriesColumns(time="t", target=("z",)))
    with pytest.raises(ValueError, match="column 'y' has two roles"):
        SeriesColumns(time="t", target=("y",), past=("y",))
    with pytest.raises(ValueError, match="there is no target column"):
        SeriesColumns(target=())
    wrong = table(("1", "1", "a"), ("2", "1", "b"), names="t,y,kind")
    with pytest.raises(ValueError, match=r"line 3: static columns of series '' are b, but a at x.csv, line 2"):
        read_series(wrong, SeriesColumns(time="t", target=("y",), static=("kind",)))


def test_interleaved_series_with_gaps() -> None:
    rows = table(("1", "a", "1"), ("1", "b", "5"), ("2", "a", ""), ("4", "a", "4"), ("2", "b", "6"), names="t,s,y")

    (one, other), frequency = read_series(rows, SeriesColumns(time="t", series="s", target=("y",)))

    assert (one.name, other.name, str(frequency)) == ("a", "b", "1 step")
    torch.testing.assert_close(one.values[:, 0], torch.tensor([1, math.nan, math.nan, 4.0]).double(), equal_nan=True)
    assert other.values[:, 0].tolist() == [5, 6]


def full(static: str = "3.5") -> tuple[TimeSeries, SeriesColumns]:
    columns = SeriesColumns("t", "s", ["y", "z"], ["p"], ["f"], ["n", "kind"])
    generator = torch.Generator().manual_seed(0)
    values = 1e6 + torch.randn(30, 2, generator=generator).double()
    values[3, 0] = torch.nan
    past, future = (torch.randn(30, 1, generator=generator).double() for _ in range(2))
    return TimeSeries("a", datetime(2024, 1, 1), values, past, future, (static, "shop"), "here"), columns


def test_a_transform_restores_numbers_and_is_plain_data() -> None:
    series, columns = full()
    other = TimeSeries("b", series.start, 2 * series.values, series.past, series.future, ("1", "web"), "there")
    made = SeriesTransform.fit([series, other], columns, Frequency.parse("day"), context=8, horizon=3)
    again = build_processor(Processor(made).to_dict()).source
    assert isinstance(again, SeriesTransform)
    assert again.to_dict() == made.to_dict()

    encoded = again.encode(series)

    assert encoded.past.shape == (30, made.past_size)
    assert encoded.future.shape == (30, made.future_size)
    assert made.future_size == 1 + 1 + 2 + 4  # future, number, two kinds, days of week and year
    known = encoded.targets[encoded.observed[:, 0], 0].double()
    assert float(known.mean()) == pytest.approx(0, abs=1e-6)
    assert float(known.std(correction=0)) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(made.decode(encoded, given=series), series.values, equal_nan=True, rtol=0, atol=1e-6)
    assert torch.equal(encoded.past[:, -made.future_size :], encoded.future)
    kinds = encoded.future[0, 2:4].tolist()
    assert kinds == [1, 0]  # shop, web


def test_a_new_series_is_scaled_by_its_own_steps_and_an_empty_one_is_refused() -> None:
    series, columns = full()
    made = SeriesTransform.fit([series], columns, Frequency.parse("day"), context=8, horizon=3)
    new = TimeSeries("new", series.start, 5 * series.values + 3, series.past, series.future, series.static, "here")
    torch.testing.assert_close(made.encode(new).targets, made.encode(series).targets, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="here: series 'new' has no observed number in target 1"):
        made.encode(TimeSeries("new", new.start, new.values * torch.nan, new.past, new.future, new.static, "here"))
