"""Drawing of the labels' probabilities over time."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

_LEAST = 0.1  # a label with a lower probability at all frames is not drawn


class Alignment(NamedTuple):
    """A source, and what the network predicts at each of its frames."""

    title: str
    picture: Tensor  # (rows, columns), in which the first row is drawn above
    probabilities: Tensor  # (frames, classes), the first of which is the blank


def draw_alignments(alignments: Sequence[Alignment], symbols: Sequence[str]) -> Figure:
    """Draws sources above the probabilities of their labels, which are spikes between blanks.

    Args:
        alignments: the sources, one or more.
        symbols: name of each class.
    """
    figure = Figure(figsize=(10.0, 2.6 * len(alignments)), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(2 * len(alignments), squeeze=False, height_ratios=[1, 2] * len(alignments))[:, 0]
    for number, each in enumerate(alignments):
        above, below = axes[2 * number], axes[2 * number + 1]
        frames = len(each.probabilities)
        extent = (-0.5, frames - 0.5, len(each.picture) - 0.5, -0.5)
        above.imshow(each.picture.numpy(), extent=extent, cmap="gray_r", aspect="auto", interpolation="nearest")
        above.set_title(each.title, fontsize=9, loc="left", parse_math=False)
        above.set_xticks([])
        above.set_yticks([])
        below.plot(each.probabilities[:, 0].numpy(), color="0.8", label="blank")
        for label in range(1, len(symbols)):
            curve = each.probabilities[:, label]
            if float(curve.max()) >= _LEAST:
                below.plot(curve.numpy())
        for frame, label in _peaks(each.probabilities):
            text = symbols[label].replace(" ", "␣")
            below.text(frame, 1.04, text, ha="center", fontsize=8, parse_math=False)
        below.set_xlim(-0.5, frames - 0.5)
        below.set_ylim(0, 1.2)
        below.set_ylabel("probability", fontsize=8)
    axes[-1].set_xlabel("frame; gray: the blank", fontsize=8)
    return figure


def _peaks(probabilities: Tensor) -> list[tuple[int, int]]:
    """Returns where each label of the most probable alignment is most probable, and the label."""
    best = probabilities.argmax(1)
    labels, counts = torch.unique_consecutive(best, return_counts=True)
    found: list[tuple[int, int]] = []
    begin = 0
    for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
        if label:
            found.append((begin + int(probabilities[begin : begin + count, label].argmax()), label))
        begin += count
    return found
