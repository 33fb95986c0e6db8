"""The picture of a sweep: parallel coordinates, drawn with matplotlib."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unrolled.training.callbacks.curves import GRID, INK
from unrolled.training.console.outputs import save_figure

_MOST_NAMES = 12  # texts on an axis


class Axis(NamedTuple):
    """A vertical axis: a height from 0 to 1 for each row, and the texts beside it."""

    heights: list[float]
    ticks: list[tuple[float, str]]


def draw_parallel_coordinates(
    path: Path,
    keys: Sequence[str],
    rows: Sequence[tuple[Sequence[str], float]],
    *,
    metric: str,
    maximize: bool,
    best: int | None,
) -> None:
    """Draws a line for each job through its values on one axis per key, with its score on the last axis.

    Axes of numbers are logarithmic where the values are positive and the largest is at least 50 times the smallest.
    Better scores are darker.

    Args:
        path: of the PNG.
        keys: names of the axes.
        rows: values and score of each job; scores are finite.
        metric: name of the score.
        maximize: whether a higher score is better.
        best: position of the best job in `rows`.

    Raises:
        OSError: the file cannot be written.
    """
    scores = [score for _, score in rows]
    axes = [axis_of([values[place] for values, _ in rows]) for place in range(len(keys))]
    axes.append(axis_of([repr(score) for score in scores]))
    figure = Figure(figsize=(2.0 + 1.8 * len(axes), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    plot: Axes = figure.subplots()
    colors = colormaps["viridis_r" if maximize else "viridis"]
    for number in sorted(range(len(rows)), key=lambda row: scores[row], reverse=not maximize):
        heights = [axis.heights[number] for axis in axes]
        wide = number == best
        color = colors(axes[-1].heights[number])
        plot.plot(heights, color=color, linewidth=3 if wide else 1.2, alpha=1 if wide else 0.8)
    for place, (name, axis) in enumerate(zip([*keys, metric], axes, strict=True)):
        _draw_axis(plot, place, name, axis)
    plot.set_xlim(-0.2, len(axes) - 0.4)
    plot.set_ylim(-0.06, 1.12)
    plot.set_axis_off()
    figure.suptitle(f"{len(rows)} runs; the thick line has the best {metric}", fontsize=11, color=INK)
    save_figure(path, figure, dpi=130)


def axis_of(texts: Sequence[str]) -> Axis:
    """Returns the axis of some values: numbers by their size, anything else in order of first appearance."""
    numbers = _numbers(texts)
    if numbers is None:
        names = list(dict.fromkeys(texts))
        places = {name: _share(place, 0, len(names) - 1) for place, name in enumerate(names)}
        shown = names if len(names) <= _MOST_NAMES else [names[0], names[-1]]
        return Axis([places[text] for text in texts], [(places[name], name.strip("'\"")) for name in shown])
    low, high = min(numbers), max(numbers)
    logarithmic = low > 0 and high >= 50 * low
    scaled = [math.log(number) if logarithmic else number for number in numbers]
    heights = [_share(number, min(scaled), max(scaled)) for number in scaled]
    values = sorted(set(zip(heights, numbers, strict=True)))
    if len(values) > _MOST_NAMES or any(b[0] - a[0] < 0.05 for a, b in pairwise(values)):
        values = [values[0], values[-1]]
        middle = math.exp(sum(map(math.log, (low, high))) / 2) if logarithmic else (low + high) / 2
        values.insert(1, (0.5, middle))
    return Axis(heights, [(height, f"{number:.4g}") for height, number in values])


def _draw_axis(plot: Axes, place: int, name: str, axis: Axis) -> None:
    plot.axvline(place, ymin=0.06 / 1.18, ymax=1.06 / 1.18, color=INK, linewidth=0.8)
    plot.text(place, 1.06, name, ha="center", va="bottom", fontsize=9, color=INK)
    for height, text in axis.ticks:
        plot.plot([place, place + 0.02], [height, height], color=INK, linewidth=0.8)
        box = {"facecolor": "white", "edgecolor": GRID, "linewidth": 0.4, "alpha": 0.8, "pad": 1}
        plot.text(place + 0.04, height, text, va="center", fontsize=8, color=INK, bbox=box)


def _numbers(texts: Sequence[str]) -> list[float] | None:
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _share(number: float, low: float, high: float) -> float:
    return 0.5 if high == low else (number - low) / (high - low)
