"""Figures of forecasts with their intervals, and of errors by step."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from unrolled.deployment.forecasting import Fan

_TRUTH, _FORECAST = "#333333", "#1f6fb2"
_NAMES = {"": "network", "naive": "naive", "seasonal_naive": "seasonal naive", "linear": "linear"}


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    """Returns a figure and its axes (rows, columns)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _format_times(axes: Any, times: Sequence[Any]) -> None:
    if times and isinstance(times[0], datetime):
        locator = AutoDateLocator(maxticks=7)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def draw_fans(fans: Sequence[Fan]) -> Figure:
    """Draws forecasts with their intervals, at most three in a row."""
    columns = min(3, len(fans))
    rows = -(-len(fans) // columns)
    figure, grid = _figure(rows, columns, 1.0 + 4.2 * columns, 0.4 + 2.7 * rows)
    for number, axes in enumerate(grid.flat):
        if number >= len(fans):
            axes.set_visible(False)
            continue
        fan = fans[number]
        times: Any = fan.times
        ahead = times[len(times) - len(fan.forecast) :]
        levels = sorted(fan.quantiles)
        pairs = [(low, high) for low, high in zip(levels, levels[::-1], strict=True) if low < high]
        for place, (low, high) in enumerate(pairs):
            label = f"{low:g} to {high:g}" if place in (0, len(pairs) - 1) else None
            axes.fill_between(
                ahead,
                fan.quantiles[low],
                fan.quantiles[high],
                color=_FORECAST,
                alpha=0.5 / len(pairs),
                lw=0,
                label=label,
            )
        axes.plot(times[: len(fan.values)], fan.values, color=_TRUTH, lw=1.2, label="observed")
        axes.plot(ahead, fan.forecast, color=_FORECAST, lw=1.6, label="forecast")
        axes.axvline(ahead[0], color="#999999", lw=0.8, ls=":")
        axes.set_title(fan.title, fontsize=9)
        axes.set_ylabel(fan.name)
        axes.tick_params(labelsize=8)
        _format_times(axes, times)
        if number == 0:
            axes.legend(fontsize=7, loc="upper left", framealpha=0.8)
    return figure


def draw_horizon(errors: Mapping[str, Sequence[float]]) -> Figure:
    """Draws the mean absolute error of each step of the horizon, in deviations of a series, by forecast."""
    figure, grid = _figure(1, 1, 7.0, 4.0)
    axes = grid[0, 0]
    axes.set_prop_cycle(color=["#e07b00", "#2a9d3a", "#8e44ad"])  # none like the network's blue
    for name, values in errors.items():
        style: Any = {"color": _FORECAST, "lw": 2.2} if not name else {"lw": 1.2, "ls": "--"}
        mark = {"marker": "o", "ms": 3} if len(values) <= 48 else {}
        axes.plot(range(1, len(values) + 1), values, label=_NAMES.get(name, name), **style, **mark)
    axes.set_xlabel("step of the horizon")
    axes.set_ylabel("mean absolute error (in deviations)")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure
