"""Draws the figures of `unrolled.inspection` with matplotlib."""

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing

from unrolled.inspection.panels import Figure, Heatmaps, Lines, Points

_STYLES = ("-", "--", ":", "-.")
_MARKS = "ox^sD+"


def draw(figure: Figure) -> Drawing:
    """Draw curves, points or heatmaps, with the title above and the sentence below.

    Raises:
        ValueError: a panel of text.
    """
    panel = figure.panel
    rows = len(panel.maps) if isinstance(panel, Heatmaps) else 1
    drawing = Drawing(figsize=(7.0, 2.2 + 1.3 * rows if rows > 1 else 4.6), layout="constrained")
    FigureCanvasAgg(drawing)
    axes: Any = drawing.subplots(rows, squeeze=False, sharex=True)[:, 0]
    if isinstance(panel, Heatmaps):
        _draw_heatmaps(axes, panel)
    elif isinstance(panel, Lines):
        _draw_lines(axes[0], panel)
    elif isinstance(panel, Points):
        _draw_points(axes[0], panel)
    else:
        raise ValueError(f"{type(panel).__name__} is text, which has no drawing")
    drawing.suptitle(figure.title, fontsize=11)
    drawing.supxlabel("\n".join(textwrap.wrap(figure.sentence, 110)), fontsize=7)
    return drawing


def _draw_lines(axes: Axes, panel: Lines) -> None:
    for number, (name, values) in enumerate(panel.curves.items()):
        axes.plot(panel.x, values, linestyle=_STYLES[number % 4], label=name)
    if panel.log_y and any(value > 0 for curve in panel.curves.values() for value in curve):
        axes.set_yscale("log")
    _label(axes, panel.x_label, panel.y_label, legend=len(panel.curves) > 1)


def _draw_points(axes: Axes, panel: Points) -> None:
    for number, (name, group) in enumerate(panel.groups.items()):
        x, y = zip(*group, strict=True)
        axes.scatter(x, y, s=14, marker=_MARKS[number % len(_MARKS)], alpha=0.6, label=name)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    _label(axes, panel.x_label, panel.y_label, legend=True)


def _draw_heatmaps(axes: Any, panel: Heatmaps) -> None:
    for ax, (name, (values, low, high)) in zip(axes, panel.maps.items(), strict=True):
        begin = panel.first - 0.5
        extent = (begin, begin + values.shape[1], len(values) - 0.5, -0.5)
        how = {"cmap": "gray", "vmin": low, "vmax": high, "aspect": "auto", "interpolation": "nearest"}
        image = ax.imshow(values.cpu().numpy(), extent=extent, **how)
        ax.set_ylabel(name, rotation=0, ha="right")
        ax.set_yticks([])
        ax.figure.colorbar(image, ax=ax, aspect=8)
    axes[-1].set_xlabel(panel.x_label)


def _label(axes: Axes, x_label: str, y_label: str, *, legend: bool) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    if legend:
        axes.legend(fontsize=8)
