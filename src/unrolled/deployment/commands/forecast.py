"""The commands forecast and anomaly: continue series of a table, and score their numbers by their forecasts."""

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unrolled.deployment.commands.arguments import add_checkpoint, add_command, add_common
from unrolled.deployment.commands.running import generator_of, load, report

if TYPE_CHECKING:
    from unrolled.deployment.forecasting import AnomalyScore
    from unrolled.processing.series.table import TimeSeries

_MOST_CHARTS = 12


def add(commands: Any) -> None:
    """Add both commands."""
    command = add_command(
        commands,
        "forecast",
        _forecast,
        about="continue time series",
        description="Forecast the steps after the last row of each series of a table. Prints a line of CSV for each "
        "step: series, time, target, forecast, quantiles.",
        example="python -m unrolled forecast best.ckpt data.csv --horizon 24 --quantiles 0.1 0.5 0.9",
    )
    _add_table(command)
    command.add_argument("--horizon", type=int, metavar="N", help="number of steps (default: all that it predicts)")
    command.add_argument(
        "--quantiles",
        type=float,
        nargs="+",
        default=[],
        metavar="Q",
        help="probabilities, such as 0.1 0.9",
    )
    command = add_command(
        commands,
        "anomaly",
        _anomaly,
        about="score the numbers of time series by their forecasts",
        description="Forecast each number of a table from those before it. Prints a line for each number outside "
        "of its interval: series, time, target, number, forecast, interval, score (1 at its end).",
        example="python -m unrolled anomaly best.ckpt data.csv --interval 0.9 --plot anomalies.svg",
    )
    _add_table(command)
    command.add_argument(
        "--interval", type=float, default=0.9, metavar="P", help="probability of the interval (default: %(default)s)"
    )
    command.add_argument(
        "--threshold", type=float, default=1.0, metavar="S", help="print scores above it (default: %(default)s)"
    )
    command.add_argument("--all", action="store_true", help="print all numbers, with those within their interval")


def _add_table(command: Any) -> None:
    add_checkpoint(command)
    command.add_argument(
        "table",
        type=Path,
        metavar="TABLE",
        help="a .csv file with the columns of training; write .parquet, .jsonl and other tables as .csv first",
    )
    command.add_argument("--json", action="store_true", help="print JSON lines instead of CSV")
    command.add_argument("--plot", type=Path, metavar="FILE", help="write a picture, an .svg file")
    command.add_argument(
        "--samples", type=int, default=100, metavar="N", help="continuations of an autoregressive network"
    )
    add_common(command)


def _read(options: argparse.Namespace) -> tuple[Any, "list[TimeSeries]"]:
    from unrolled.deployment.forecasting import forecaster_of, read_csv_series

    if options.plot is not None and options.plot.suffix != ".svg":
        raise ValueError(f"--plot {options.plot}: pictures are .svg files")
    bundle = load(options, options.checkpoint)
    transform = forecaster_of(bundle)[1]
    series = read_csv_series(options.table, transform.columns, transform.frequency)
    unknown = [each.name for each in series if each.name not in transform.scales]
    if unknown:
        names = ", ".join(map(repr, unknown[:3])) if any(unknown) else "the series"
        report(options.command, f"{names} was not in training and is scaled by its own mean and deviation")
    return bundle, series


def _forecast(options: argparse.Namespace) -> None:
    from unrolled.deployment.forecast_plots import forecast_charts
    from unrolled.deployment.forecasting import forecast

    bundle, series = _read(options)
    levels: list[float] = sorted(set(options.quantiles))
    steps = list(
        forecast(
            bundle,
            series,
            horizon=options.horizon,
            quantiles=levels,
            num_samples=options.samples,
            generator=generator_of(options),
        )
    )
    rows = [
        {"series": s.series, "time": str(s.time), "target": s.target, "forecast": s.value}
        | {f"q{level:g}": s.quantiles[level] for level in levels}
        for s in steps
    ]
    if options.plot is not None:
        _write_plot(options.plot, forecast_charts(bundle, series, steps))
    _print(rows, options)


def _anomaly(options: argparse.Namespace) -> None:
    from unrolled.deployment.forecasting import anomalies

    bundle, series = _read(options)
    generator = generator_of(options)
    scores = list(
        anomalies(bundle, series, interval=options.interval, num_samples=options.samples, generator=generator)
    )
    found = [score for score in scores if score.score > options.threshold]
    if options.plot is not None:
        _write_plot(options.plot, _anomaly_charts(scores, options.threshold))
    _print([{**s._asdict(), "time": str(s.time)} for s in (scores if options.all else found)], options)
    report(options.command, f"{len(found)} of {len(scores)} numbers have a score above {options.threshold:g}")


def _print(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    if options.json:
        for row in rows:
            finite = {name: None if value in (math.inf, -math.inf) else value for name, value in row.items()}
            print(json.dumps(finite, ensure_ascii=False))
    elif rows:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow(f"{value:.7g}" if isinstance(value, float) else value for value in row.values())


def _write_plot(path: Path, charts: Iterable[Any]) -> None:
    from unrolled import durable
    from unrolled.deployment.forecast_plots import draw_charts

    drawing = draw_charts(list(charts)[:_MOST_CHARTS])
    durable.replace(path, lambda partial: partial.write_text(drawing, encoding="utf-8"))


def _anomaly_charts(scores: "Sequence[AnomalyScore]", threshold: float) -> list[Any]:
    """Return a chart of each target of each series, with the scores above the threshold marked."""
    from unrolled.deployment.forecast_plots import Chart

    charts: list[Chart] = []
    for (name, target), several in groupby(sorted(scores, key=_key), _key):
        rows = list(several)
        charts.append(
            Chart(
                title=f"{name}: {target}" if name else target,
                times=[row.time for row in rows],
                values=[row.value for row in rows],
                forecast=[row.forecast for row in rows],
                bands=[([row.lower for row in rows], [row.upper for row in rows])],
                marked=[place for place, row in enumerate(rows) if row.score > threshold],
            )
        )
    return charts


def _key(row: "AnomalyScore") -> tuple[str, str]:
    return row.series, row.target
