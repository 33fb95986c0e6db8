"""Pictures of written lines, and of the window over their characters."""

from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unrolled.deployment.handwriting import Written
from unrolled.processing.strokes import Strokes


def draw_lines(lines: Sequence[Strokes], titles: Sequence[str]) -> Figure:
    """Draws each line in a panel, with its text above."""
    figure = Figure(figsize=(9, 1.2 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(lines), squeeze=False)[:, 0]
    for axes, strokes, title in zip(panels, lines, titles, strict=True):
        for stroke in strokes:
            columns, rows = zip(*stroke, strict=True)
            axes.plot(columns, rows, color="black", linewidth=1.2, marker="." if len(stroke) == 1 else None, ms=2)
        axes.set_aspect("equal", "datalim", anchor="W")
        axes.invert_yaxis()
        axes.set_axis_off()
        axes.set_title(title, fontsize=8, loc="left", color="gray")
    return figure


def draw_window(written: Written, symbols: Sequence[str]) -> Figure:
    """Draws the window's weights, points from left to right and characters from below, above what was written."""
    weights = written.weights.T.numpy()
    figure = Figure(figsize=(9, 1.5 + 0.18 * len(symbols)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(weights, origin="lower", aspect="auto", cmap="Blues", interpolation="nearest")
    axes.set_yticks(range(len(symbols)), symbols)
    axes.tick_params(length=0)
    axes.set_xlabel("point")
    axes.set_ylabel("character")
    return figure
