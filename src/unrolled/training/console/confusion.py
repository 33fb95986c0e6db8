"""The figure of a confusion matrix."""

from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

_MOST_NAMED = 40  # maximum number of labeled classes on an axis


def draw_confusion(counts: Tensor, labels: Sequence[str]) -> Figure:
    """Draws a confusion matrix: labels on the y axis, predictions on the x axis, colored by row fraction."""
    count = len(labels)
    edge = min(2.4 + 0.42 * count, 14.0)
    figure = Figure(figsize=(edge + 0.8, edge), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = (counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
    picture = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    if count <= _MOST_NAMED:
        names = [label if len(label) <= 16 else f"{label[:15]}…" for label in labels]
        axes.set_xticks(range(count), names, rotation=60 if max(map(len, names)) > 2 else 0, ha="center")
        axes.set_yticks(range(count), names)
    if count <= 25:
        for row in range(count):
            for column in range(count):
                number = int(counts[row, column])
                if number:
                    color = "white" if shares[row, column] > 0.6 else "#333333"
                    axes.text(column, row, str(number), ha="center", va="center", color=color, fontsize=8)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted label")
    axes.set_ylabel("label")
    figure.colorbar(picture, ax=axes, label="fraction of the label", shrink=0.8, format=PercentFormatter(1.0))
    return figure
