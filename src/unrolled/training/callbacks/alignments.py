"""Figures of the attention weights for each generated token."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from unrolled.training.console.outputs import save_figure
from unrolled.training.console.terminal import warn_disabled

_MAX_SYMBOLS = 60  # on an axis; more would be illegible
_COLUMNS = 8  # panels in a row


class Drawable(Protocol):
    """An object with a figure."""

    def draw(self) -> Figure: ...


class Alignment(NamedTuple):
    """Attention weights over a source sequence for each generated token.

    Attributes:
        source: the source's symbols.
        text: the generated symbols, including the end of the text.
        weights: (text, source) from 0 to 1.
    """

    source: Sequence[str]
    text: Sequence[str]
    weights: Tensor

    def draw(self) -> Figure:
        """Draws a heat map."""
        return draw_alignment(self)


class RegionAlignment(NamedTuple):
    """Attention weights over the regions of an image for each generated token.

    Attributes:
        image: (height, width, 3) or (height, width), uint8.
        text: the generated symbols, including the end of the text.
        weights: (text, region) from 0 to 1; the regions form a square grid, in row-major order.
    """

    image: Tensor
    text: Sequence[str]
    weights: Tensor

    def draw(self) -> Figure:
        """Draws the image, then a copy for each symbol, bright where the attention weights are large."""
        return draw_regions(self)


class _Aligner(Protocol):
    def alignments(self, count: int) -> list[Drawable]: ...


class Alignments(Callback):
    """Draws attention weights of a few validation examples after every validation, as PNG files and in TensorBoard.

    Calls `task.alignments(count)` on rank 0 only, without gradients, and draws each item. A task whose network has no
    attention returns an empty list. If the module has no `alignments` method, the callback logs one warning and does
    nothing.

    Args:
        folder: the run's folder; figures go to `alignments/` in it and replace those of the previous validation.
        count: number of examples.

    Raises:
        ValueError: a count below 1.
    """

    def __init__(self, folder: str | Path, *, count: int = 4) -> None:
        if count < 1:
            raise ValueError(f"count={count}: 1 or more, or leave the callback out: callbacks.alignments=null")
        self.folder = Path(folder) / "alignments"
        self.count = count
        self._enabled = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._enabled = callable(getattr(pl_module, "alignments", None))
        if stage == "fit" and not self._enabled:
            warn_disabled(self, f"{type(pl_module).__name__} has no alignments(count)")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled or trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        with torch.no_grad():
            found = cast("_Aligner", pl_module).alignments(self.count)
        for number, alignment in enumerate(found, start=1):
            figure = alignment.draw()
            save_figure(self.folder / f"{number}.png", figure, dpi=120)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(f"alignment/{number}", figure, trainer.global_step)


def draw_alignment(alignment: Alignment) -> Figure:
    """Draws a heat map: generated symbols on the y axis, source symbols on the x axis, dark for large weights."""
    source, text = list(alignment.source[:_MAX_SYMBOLS]), list(alignment.text[:_MAX_SYMBOLS])
    weights = alignment.weights[: len(text), : len(source)].float().cpu().numpy()
    figure = Figure(figsize=(2.2 + 0.34 * len(source), 1.8 + 0.28 * len(text)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    picture = axes.imshow(weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(source)), source, rotation=60, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(text)), text)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_xlabel("source")
    axes.set_ylabel("generated")
    figure.colorbar(picture, ax=axes, label="attention", shrink=0.8)
    return figure


def draw_regions(alignment: RegionAlignment) -> Figure:
    """Draws the image, then a copy of it for each symbol, bright where weights are large (Xu et al. 2015, figure 3).

    The brightness of each copy is relative to its largest weight. The title shows that weight after the symbol, so that
    a uniform distribution can be distinguished from a peaked one.

    Raises:
        ValueError: the number of regions is not a square.
    """
    text, weights = list(alignment.text[:_MAX_SYMBOLS]), alignment.weights.float().cpu()
    side = math.isqrt(weights.shape[1])
    if side * side != weights.shape[1]:
        raise ValueError(f"{weights.shape[1]} regions do not form a square grid")
    columns = min(_COLUMNS, len(text) + 1)
    rows = -(-(len(text) + 1) // columns)
    figure = Figure(figsize=(1.55 * columns, 1.75 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(rows, columns, squeeze=False).flat
    image = alignment.image.numpy()
    high, wide = image.shape[:2]
    for number, panel in enumerate(panels):
        panel.set_axis_off()
        if number > len(text):
            continue
        panel.imshow(image, cmap="gray", vmin=0, vmax=255)
        panel.set_title("" if number == 0 else f"{text[number - 1]} {weights[number - 1].max():.2f}", fontsize=8)
        if number:
            relative = weights[number - 1].view(side, side) / weights[number - 1].max().clamp(min=1e-6)
            # Each cell of the grid covers its region of the image, with smooth borders.
            panel.imshow(
                1 - relative.numpy(),
                cmap="gray_r",
                alpha=0.75 * (1 - relative.numpy()),
                extent=(0, wide, high, 0),
                vmin=0,
                vmax=1,
                interpolation="bilinear",
            )
            panel.set_xlim(0, wide)
            panel.set_ylim(high, 0)
    return figure
