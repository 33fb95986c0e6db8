"""Forecasts and anomalies of time series, by a trained network."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.models.forecasters.base import Forecast, Forecaster
from unrolled.processing.series.table import SeriesColumns, TimeSeries, read_series
from unrolled.processing.series.times import Frequency, Time
from unrolled.processing.series.transform import SeriesTransform
from unrolled.wording import article, counted

_OTHER_TABLES = (".tsv", ".parquet", ".jsonl", ".json", ".ndjson", ".gz")  # which training reads


class ForecastStep(NamedTuple):
    """The forecast of a step of a series.

    Attributes:
        series: its name; "" for the only series of a table.
        time: the time of the step.
        target: name of the number.
        value: the mean or median.
        quantiles: the quantile of each level.
    """

    series: str
    time: Time
    target: str
    value: float
    quantiles: dict[float, float]


class AnomalyScore(NamedTuple):
    """How far a number is from its forecast.

    Attributes:
        series: name of the series.
        time: the time of the step.
        target: name of the number.
        value: the number.
        forecast: its forecast from the steps before.
        lower: lower end of the interval.
        upper: upper end of the interval.
        score: distance from the forecast, where 1 is the end of the interval on that side; above 1 is an anomaly.
    """

    series: str
    time: Time
    target: str
    value: float
    forecast: float
    lower: float
    upper: float
    score: float


@dataclass(frozen=True)
class Fan:
    """A forecast with its intervals beside the numbers, for a picture.

    Attributes:
        title: the title.
        name: name of the number.
        times: times of the history and of the forecast's steps.
        values: the numbers of all times, NaN where they are unknown; they may end before the forecast does.
        forecast: the forecast of the last times.
        quantiles: the quantiles of the same times by level.
    """

    title: str
    name: str
    times: Sequence[Time]
    values: Sequence[float]
    forecast: Sequence[float]
    quantiles: Mapping[float, Sequence[float]] = field(default_factory=dict[float, Sequence[float]])


def forecaster_of(bundle: Bundle) -> tuple[Forecaster, SeriesTransform]:
    """Return the network of a forecaster and the transform of its series.

    Raises:
        ValueError: the bundle contains another network.
    """
    network, source = bundle.network, bundle.processor.source
    if not isinstance(network, Forecaster) or not isinstance(source, SeriesTransform):
        raise ValueError(
            f"forecasts need a Forecaster of series; this checkpoint contains {article(type(network).__name__)}"
        )
    return network, source


def read_csv_series(path: str | Path, columns: SeriesColumns, frequency: Frequency) -> list[TimeSeries]:
    """Read the series of a .csv file; see `read_series`.

    Raises:
        ValueError: a file of another kind or that can't be read, or wrong rows, with file and line.
    """
    path = Path(path)
    if path.suffix.lower() in _OTHER_TABLES:
        raise ValueError(f"{path}: forecasts read .csv files; write this {path.suffix} as one, for example with pandas")
    with path.open(encoding="utf-8-sig", newline="") as file:
        return read_series(csv_rows(file, str(path)), columns, frequency)[0]


def parse_csv_series(text: str, name: str, columns: SeriesColumns, frequency: Frequency) -> list[TimeSeries]:
    """Return the series of a table, as `read_csv_series` does, from the content of a file.

    Args:
        text: the content.
        name: name of the table in messages.
        columns: see `read_series`.
        frequency: see `read_series`.

    Raises:
        ValueError: see `read_csv_series`.
    """
    return read_series(csv_rows(io.StringIO(text, newline=""), name), columns, frequency)[0]


def csv_rows(file: TextIO, name: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the place and the cells by column of each row of a .csv file, whose first line names the columns.

    Args:
        file: the open file.
        name: its name in messages.

    Raises:
        ValueError: an empty file, rows of unequal length, or no valid UTF-8 or CSV.
    """
    try:
        reader = csv.reader(file)
        header = next(reader, None)
        if header is None:
            raise ValueError(f"{name} is empty; its first line must name the columns")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise ValueError(
                    f"{name}, line {reader.line_num} has {counted(len(cells), 'column')}, the first line {len(header)}"
                )
            yield f"{name}, line {reader.line_num}", dict(zip(header, cells, strict=True))
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: {error.reason} at byte {error.start}") from None
    except csv.Error as error:
        raise ValueError(f"{name} is not valid CSV: {error}") from None


def forecast_series(
    network: Forecaster,
    transform: SeriesTransform,
    series: TimeSeries,
    origin: int,
    *,
    levels: Sequence[float] = (),
    num_samples: int = 100,
    generator: torch.Generator | None = None,
) -> Forecast:
    """Forecast the steps of a series from a step on, in its own units.

    Args:
        network: the network, usually in evaluation mode.
        transform: its transform.
        series: the series; steps from `origin` on are not read, but for what is known of the future. One that is new
            to the transform is scaled by its steps before `origin`.
        origin: the first predicted step.
        levels: see `Forecaster.forecast`.
        num_samples: see `Forecaster.forecast`.
        generator: see `Forecaster.forecast`.

    Returns:
        Values (horizon, targets) and quantiles (horizon, targets, levels), in float64 on the CPU.

    Raises:
        ValueError: no step before `origin`, or none to scale a new series by; fewer future steps than the horizon has.
    """
    transform = transform.including([series.until(origin)])
    found = _forecasts(network, transform, series, [origin], levels, num_samples, generator)
    return Forecast(found.values[0], found.quantiles[0])


def _forecasts(
    network: Forecaster,
    transform: SeriesTransform,
    series: TimeSeries,
    origins: Sequence[int],
    levels: Sequence[float],
    num_samples: int,
    generator: torch.Generator | None,
) -> Forecast:
    """Return forecasts of several windows of a series, with the windows as first axis."""
    if min(origins) < 1:
        raise ValueError(f"{series.place}: {series.title} has no step before its forecast")
    extended = _extended(series, transform, max(origins) + network.horizon)
    encoded = transform.encode(extended)
    device = next(network.parameters()).device
    begins = [max(0, origin - transform.context) for origin in origins]
    past = [encoded.past[begin:origin] for begin, origin in zip(begins, origins, strict=True)]
    padded = torch.nn.utils.rnn.pad_sequence(past, batch_first=True).to(device)
    future = torch.stack([encoded.future[origin : origin + network.horizon] for origin in origins]).to(device)
    lengths = torch.tensor([len(steps) for steps in past])
    found = network.forecast(padded, future, lengths, levels=levels, num_samples=num_samples, generator=generator)
    quantiles = transform.decode(found.quantiles.mT, series).mT
    return Forecast(transform.decode(found.values, series), quantiles)


def _extended(series: TimeSeries, transform: SeriesTransform, steps: int) -> TimeSeries:
    """Return a series with at least this number of steps of the future.

    Raises:
        ValueError: columns that are known beforehand, and no rows for these steps.
    """
    missing = steps - len(series.future)
    if missing <= 0:
        return series
    if transform.columns.future:
        raise ValueError(
            f"{series.place}: {series.title} needs {counted(missing, 'more row')} after its last one, with "
            f"{', '.join(transform.columns.future)} and empty targets: this network reads them of the future"
        )
    future = torch.nn.functional.pad(series.future, (0, 0, 0, missing))
    return replace(series, future=future)


def forecast(
    bundle: Bundle,
    series: Iterable[TimeSeries],
    *,
    horizon: int | None = None,
    quantiles: Sequence[float] = (),
    num_samples: int = 100,
    generator: torch.Generator | None = None,
) -> Iterator[ForecastStep]:
    """Yield the forecast of each step after the last observed one of each series, in order.

    Args:
        bundle: a forecaster from `load_bundle`.
        series: the series, such as `read_csv_series` returns.
        horizon: number of steps, at most that of the network; None for that.
        quantiles: probabilities between 0 and 1.
        num_samples: number of sampled continuations of an autoregressive network.
        generator: its random number generator, on the network's device.

    Raises:
        ValueError: a network of another kind, a horizon below 1 or above the network's, a probability outside (0, 1), a
            head without quantiles, a series without an observed number.
    """
    network, transform = forecaster_of(bundle)
    horizon = network.horizon if horizon is None else horizon
    if not 1 <= horizon <= network.horizon:
        raise ValueError(
            f"horizon={horizon}: expected 1 to {network.horizon}, the steps that this network predicts; train one with "
            "data.horizon for more"
        )
    check_levels(network, quantiles)
    for each in series:
        origin = each.observed
        if origin == 0:
            raise ValueError(f"{each.place}: {each.title} has no observed number to continue")
        found = forecast_series(
            network, transform, each, origin, levels=quantiles, num_samples=num_samples, generator=generator
        )
        for step in range(horizon):
            time = transform.frequency.after(each.start, origin + step)
            for place, target in enumerate(transform.columns.target):
                several = dict(zip(quantiles, found.quantiles[step, place].tolist(), strict=True))
                yield ForecastStep(each.name, time, target, float(found.values[step, place]), several)


def anomalies(
    bundle: Bundle,
    series: Iterable[TimeSeries],
    *,
    interval: float = 0.9,
    batch_size: int = 64,
    num_samples: int = 100,
    generator: torch.Generator | None = None,
) -> Iterator[AnomalyScore]:
    """Yield the score of each observed number of each series, by its forecast from the steps before it.

    The first number has nothing before it and no score. A series that training did not contain is scaled by all its
    numbers, the ones to score among them.

    Args:
        bundle: a forecaster from `load_bundle`.
        series: the series.
        interval: probability of the interval whose ends have the score 1.
        batch_size: number of steps that are scored at once.
        num_samples: see `forecast`.
        generator: see `forecast`.

    Raises:
        ValueError: a network of another kind, an interval outside (0, 1) or a batch_size below 1, a head without
            quantiles.
    """
    network, transform = forecaster_of(bundle)
    if not 0.0 < interval < 1.0 or batch_size < 1:
        raise ValueError(
            f"interval={interval}, batch_size={batch_size}: expected a probability between 0 and 1, and 1 or more"
        )
    levels = (round(0.5 - interval / 2, 9), 0.5, round(0.5 + interval / 2, 9))
    check_levels(network, levels)
    for each in series:
        padded = each
        if transform.columns.future:  # the rows after the last one are unknown, and only the first step is read
            padded = replace(
                each, future=torch.nn.functional.pad(each.future, (0, 0, 0, network.horizon), value=math.nan)
            )
        for begin in range(1, len(each), batch_size):
            origins = range(begin, min(begin + batch_size, len(each)))
            found = _forecasts(network, transform, padded, origins, levels, num_samples, generator)
            first = found.quantiles[:, 0]
            yield from _scores(each, transform, origins, first)


def _scores(
    series: TimeSeries, transform: SeriesTransform, origins: Sequence[int], quantiles: Tensor
) -> Iterator[AnomalyScore]:
    """Yield the scores of steps from quantiles (steps, targets, 3)."""
    for step, of_step in zip(origins, quantiles, strict=True):
        for place, target in enumerate(transform.columns.target):
            value = float(series.values[step, place])
            if math.isnan(value):
                continue
            lower, middle, upper = of_step[place].tolist()
            width = upper - middle if value >= middle else middle - lower
            distance = abs(value - middle)
            score = distance / width if width > 0 else (math.inf if distance > 0 else 0.0)
            time = transform.frequency.after(series.start, step)
            yield AnomalyScore(series.name, time, target, value, middle, lower, upper, score)


def check_levels(network: Forecaster, levels: Sequence[float]) -> None:
    """Check that a network can predict quantiles.

    Raises:
        ValueError: a probability outside (0, 1), or a head that can't predict them.
    """
    wrong = next((level for level in levels if not 0.0 < level < 1.0), None)
    if wrong is not None:
        raise ValueError(f"quantile {wrong}: expected a probability between 0 and 1")
    if not levels:
        return
    like: Any = network.head.linear.weight
    try:
        network.head.quantiles_at(like.new_zeros(network.head.output_size), levels)
    except NotImplementedError:  # not every head can: see `VectorHead.quantiles_at`
        raise ValueError(
            f"this network predicts no quantiles, only the numbers of its {type(network.head).__name__}; train one "
            "with distribution=quantile, student_t or normal"
        ) from None
