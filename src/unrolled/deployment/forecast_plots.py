"""Pictures of forecasts and anomalies as SVG, without a drawing library."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from unrolled.checkpoint import Bundle
from unrolled.deployment.forecasting import ForecastStep, forecaster_of
from unrolled.processing.series.table import TimeSeries
from unrolled.processing.series.times import Time

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 900, 240, 70, 28, 30
_TRUTH, _FORECAST, _ALARM = "#333333", "#1f6fb2", "#c62828"


@dataclass(frozen=True)
class Chart:
    """A series with forecasts.

    Attributes:
        title: the title.
        times: the time of each step.
        values: the numbers, NaN where they are unknown.
        forecast: the forecasts, NaN where there are none.
        bands: lower and upper ends of intervals, the widest first, NaN where there are none.
        marked: steps that are marked.
    """

    title: str
    times: Sequence[Time]
    values: Sequence[float]
    forecast: Sequence[float]
    bands: Sequence[tuple[Sequence[float], Sequence[float]]] = ()
    marked: Sequence[int] = ()


def forecast_charts(bundle: Bundle, series: Sequence[TimeSeries], steps: Sequence[ForecastStep]) -> list[Chart]:
    """Return a chart of each target of each series: the last steps before the forecast, and the forecast.

    Args:
        bundle: the forecaster.
        series: the series.
        steps: the result of `forecast` for them.
    """
    transform = forecaster_of(bundle)[1]
    by_name = {each.name: each for each in series}
    charts: list[Chart] = []
    for (name, target), several in groupby(sorted(steps, key=_key), _key):
        ahead, of = list(several), by_name[name]
        begin = max(0, of.observed - 3 * len(ahead))
        history = of.values[begin : of.observed, transform.columns.target.index(target)].tolist()
        nothing = [math.nan] * len(history)
        levels = sorted(ahead[0].quantiles)
        pairs = [(low, high) for low, high in zip(levels, levels[::-1], strict=True) if low < high]
        lines = {level: nothing + [step.quantiles[level] for step in ahead] for level in levels}
        charts.append(
            Chart(
                title=f"{name}: {target}" if name else target,
                times=[transform.frequency.after(of.start, begin + step) for step in range(len(history) + len(ahead))],
                values=history + [math.nan] * len(ahead),
                forecast=nothing + [step.value for step in ahead],
                bands=[(lines[low], lines[high]) for low, high in pairs],
            )
        )
    return charts


def _key(step: ForecastStep) -> tuple[str, str]:
    return step.series, step.target


def draw_charts(charts: Sequence[Chart]) -> str:
    """Return an SVG with one chart below another: numbers in gray, forecasts in blue, marks in red."""
    height = _HEIGHT * len(charts)
    parts = [f'<g transform="translate(0 {_HEIGHT * place})">{_chart(chart)}</g>' for place, chart in enumerate(charts)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12"><rect class="paper" width="100%" height="100%" fill="white"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _chart(chart: Chart) -> str:
    ends = [end for band in chart.bands for end in band]
    known = [y for line in (chart.values, chart.forecast, *ends) for y in line if math.isfinite(y)] or [0.0]
    low, high = min(known), max(known)
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin
    right, bottom = _WIDTH - 12, _HEIGHT - _BOTTOM
    count = max(1, len(chart.times) - 1)

    def place(step: int, y: float) -> str:
        return f"{_LEFT + (right - _LEFT) * step / count:.1f},{bottom - (bottom - _TOP) * (y - low) / (high - low):.1f}"

    parts = [f'<text x="{_LEFT}" y="18" font-weight="bold">{escape(chart.title)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = low + share * (high - low)
        x, line = place(0, y).split(",")
        parts.append(f'<line x1="{x}" x2="{right}" y1="{line}" y2="{line}" stroke="#dddddd" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{float(line) + 4:.1f}" text-anchor="end">{y:.4g}</text>')
    for step, anchor in ((0, "start"), (len(chart.times) // 2, "middle"), (len(chart.times) - 1, "end")):
        x = place(step, low).split(",")[0]
        shown = str(chart.times[step]).removesuffix(" 00:00:00")
        parts.append(f'<text x="{x}" y="{_HEIGHT - 10}" text-anchor="{anchor}">{escape(shown)}</text>')
    for lower, upper in chart.bands:
        for piece in _pieces([a + b for a, b in zip(lower, upper, strict=True)]):
            around = [place(step, upper[step]) for step in piece] + [place(step, lower[step]) for step in piece[::-1]]
            parts.append(f'<polygon points="{" ".join(around)}" fill="{_FORECAST}" fill-opacity="0.2" class="band"/>')
    for line, color, kind in ((chart.values, _TRUTH, "truth"), (chart.forecast, _FORECAST, "forecast")):
        for piece in _pieces(line):
            points = " ".join(place(step, line[step]) for step in piece)
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.3" class="{kind}"/>'
            )
    for step in chart.marked:
        x, y = place(step, chart.values[step]).split(",")
        parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{_ALARM}" class="alarm"/>')
    return "".join(parts)


def _pieces(line: Sequence[float]) -> list[list[int]]:
    """Return the runs of steps with finite numbers."""
    found: list[list[int]] = []
    for step, y in enumerate(line):
        if not math.isfinite(y):
            continue
        if found and found[-1][-1] == step - 1:
            found[-1].append(step)
        else:
            found.append([step])
    return found
