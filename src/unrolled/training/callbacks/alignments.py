"""What each written word looked at, as a picture."""

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
from unrolled.training.console.terminal import leave_out

_MOST = 60  # symbols on an axis that can still be read
_COLUMNS = 8  # pictures beside one another


class Drawn(Protocol):
    """What can be drawn."""

    def draw(self) -> Figure: ...


class Alignment(NamedTuple):
    """Attention over a source while a text was written.

    Attributes:
        source: its symbols.
        text: the symbols written, the end included.
        weights: (text, source) from 0 to 1.
    """

    source: Sequence[str]
    text: Sequence[str]
    weights: Tensor

    def draw(self) -> Figure:
        """A heat map."""
        return draw_alignment(self)


class RegionAlignment(NamedTuple):
    """Attention over the regions of an image while a text was written.

    Attributes:
        image: (height, width, 3) or (height, width), uint8.
        text: the symbols written, the end included.
        weights: (text, region) from 0 to 1, the regions row by row of a square grid.
    """

    image: Tensor
    text: Sequence[str]
    weights: Tensor

    def draw(self) -> Figure:
        """The image, then a copy for each word, bright where the word looked."""
        return draw_regions(self)


class _Aligner(Protocol):
    def alignments(self, count: int) -> list[Drawn]: ...


class Alignments(Callback):
    """Draws where attention lay for a few validation examples after every validation: as PNG files and in TensorBoard.

    Calls `task.alignments(count)`, whose items draw themselves, in process 0 alone, without gradients; a task whose
    network has no attention gives none. With a module that has no `alignments` it does nothing, and says so once.

    Args:
        folder: the run's folder; pictures go to `alignments/` in it, those of the last validation replace older ones.
        count: examples.

    Raises:
        ValueError: a count below 1.
    """

    def __init__(self, folder: str | Path, *, count: int = 4) -> None:
        if count < 1:
            raise ValueError(f"count={count}: 1 or more, or leave the callback out: callbacks.alignments=null")
        self.folder = Path(folder) / "alignments"
        self.count = count
        self._able = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._able = callable(getattr(pl_module, "alignments", None))
        if stage == "fit" and not self._able:
            leave_out(self, f"{type(pl_module).__name__} has no alignments(count)")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._able or trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
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
    """A heat map: written symbols from top to bottom, source symbols from left to right, dark where attention lay."""
    source, text = list(alignment.source[:_MOST]), list(alignment.text[:_MOST])
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
    axes.set_ylabel("written")
    figure.colorbar(picture, ax=axes, label="attention", shrink=0.8)
    return figure


def draw_regions(alignment: RegionAlignment) -> Figure:
    """The image, then a copy of it for each symbol, lit where attention lay (Xu et al. 2015, figure 3).

    Each copy is lit in proportion to its own largest weight, which stands behind the symbol: a flat one is told from a
    sharp one by that number.

    Raises:
        ValueError: regions that make no square grid.
    """
    text, weights = list(alignment.text[:_MOST]), alignment.weights.float().cpu()
    side = math.isqrt(weights.shape[1])
    if side * side != weights.shape[1]:
        raise ValueError(f"{weights.shape[1]} regions make no square grid")
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
            looked = weights[number - 1].view(side, side) / weights[number - 1].max().clamp(min=1e-6)
            # Each place of the grid over its own share of the picture, with smooth borders.
            panel.imshow(
                1 - looked.numpy(),
                cmap="gray_r",
                alpha=0.75 * (1 - looked.numpy()),
                extent=(0, wide, high, 0),
                vmin=0,
                vmax=1,
                interpolation="bilinear",
            )
            panel.set_xlim(0, wide)
            panel.set_ylim(high, 0)
    return figure
