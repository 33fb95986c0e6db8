"""The figure of right sequences by length."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

_MOST_BARS = 30


def draw_by_length(lengths: Sequence[int], right: Sequence[bool]) -> Figure:
    """Draws the share of right sequences by length, in bins of equal width where there are many lengths.

    Args:
        lengths: (sequences,) numbers of steps; at least one.
        right: (sequences,) whether all predictions of a sequence are right.
    """
    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    steps, found = np.asarray(lengths), np.asarray(right, dtype=np.float64)
    width = -(-int(steps.max() - steps.min() + 1) // _MOST_BARS)
    bins = (steps - steps.min()) // width
    counts = np.bincount(bins)
    shares = np.bincount(bins, weights=found)[counts > 0] / counts[counts > 0]
    middles = steps.min() + width * np.flatnonzero(counts) + (width - 1) / 2
    axes.bar(middles, shares, width=0.9 * width, color="#3b6ea8")
    axes.set_ylim(0.0, 1.05)
    axes.set_xlabel("length of the sequence in steps" + (f", {width} lengths in a bar" if width > 1 else ""))
    axes.set_ylabel("right sequences")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.spines[["top", "right"]].set_visible(False)
    return figure
