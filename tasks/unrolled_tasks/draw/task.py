"""Training of a DRAW network on the variational bound, in nats."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, cast

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

from unrolled import DRAW
from unrolled.deployment.drawing import picture_of, prior_draws
from unrolled.losses import Loss
from unrolled.models.draw import Bound, Glimpse
from unrolled.training.console.outputs import save_figure, write_rows
from unrolled.training.data.base import SequenceData
from unrolled.training.tasks.base import SequenceTask
from unrolled.training.tasks.evaluation import Scored
from unrolled.wording import article
from unrolled_tasks.draw.data import DrawingData, ImageBatch

_SHOWN = 8  # images of a picture
_DPI = 120


class Bounded(NamedTuple):
    """The bound of an image, for a report."""

    example: int
    reconstruction: float
    kl: float

    @property
    def loss(self) -> float:
        """The bound in nats."""
        return self.reconstruction + self.kl


class Drawing(SequenceTask):
    """Trains a `DRAW` network on the bound on −log p(image); see `SequenceTask` for the arguments.

    Metrics are the bound (`loss`) and its two parts, `reconstruction` and `kl`, in nats per image. The noise of an
    image follows from the seed, the split, the number of the image and the epoch, so that neither the number of
    processes nor a resumed run changes it. In validation and test it stays the same.
    """

    network: DRAW  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, never another

    files: ClassVar[Mapping[str, str]] = {
        "samples.png": "new images, glimpse by glimpse",
        "reconstructions.png": "images of the test and their canvases, with the places of reading and writing",
        "worst.png": "the same of the images with the greatest bounds",
        "bounds.csv": "the bound of each image of the test and its two parts, in nats",
    }

    def attach(self, data: SequenceData) -> None:
        """See `SequenceTask.attach`.

        Raises:
            ValueError: data or a network of another kind.
        """
        for part, kind in ((data, DrawingData), (self.network, DRAW)):
            if not isinstance(part, kind):
                raise ValueError(f"{type(self).__name__} needs {kind.__name__}, not {article(type(part).__name__)}")
        super().attach(data)

    def stepped_parts(self) -> tuple[nn.Module, ...]:
        """Returns the encoder and the decoder, which run once for each glimpse."""
        return self.network.encoder, self.network.decoder

    def bound(self, batch: ImageBatch) -> Bound:
        """Returns the bound of each image."""
        glimpses = self.network(batch.images, self._noise(batch.seeds))
        return self.network.bound(batch.images, glimpses)

    def _noise(self, seeds: Sequence[Sequence[int]]) -> Tensor:
        """Draws the noise (batch, glimpses, latent) of images."""
        like, shape = self.network.initial_canvas, (self.network.num_glimpses, self.network.latent_size)
        draws = [np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) for seed in seeds]
        return torch.from_numpy(np.stack(draws)).to(like)

    def loss(self, batch: ImageBatch, loader: str) -> Loss:
        """Returns the summed bound."""
        return _summed(self.bound(batch).total)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Returns the batch's share of the optimizer step's mean bound."""
        bound = self.bound(batch)
        for name, values in _named(bound).items():
            shown = name == "loss"
            self.log_step(f"train/{name}", values.detach().mean(), prog_bar=shown, batch_size=len(batch.images))
        return bound.total.sum() * batch.scale + self.penalty()

    def score(self, batch: ImageBatch, loader: str) -> Scored:
        """Returns the bound and its parts, and those of each image."""
        bound = self.bound(batch)
        rows = [Bounded(*row) for row in zip(batch.examples.tolist(), *(each.tolist() for each in bound), strict=True)]
        return Scored({name: _summed(values) for name, values in _named(bound).items()}, rows)

    def sample(self, generator: torch.Generator) -> str:
        """Returns a new image, in characters."""
        image = self.network.generate(prior_draws(self.network, 1, generator))[-1].canvas[0].sigmoid().mean(0)
        return "\n".join("".join(" ░▒▓█"[round(4 * pixel)] * 2 for pixel in row) for row in image.tolist())

    def pictures(self, generator: torch.Generator) -> Mapping[str, Figure | str]:
        """Returns pictures of new images and of images of the validation, glimpse by glimpse."""
        found = {"samples.png": _figure(self.network.generate(prior_draws(self.network, _SHOWN, generator)))}
        if isinstance(self.data, DrawingData) and "validation" in self.data.splits():
            found["reconstructions.png"] = self._drawn_again("validation", range(_SHOWN))
        return cast("Mapping[str, Figure | str]", found)

    def _drawn_again(self, split: str, numbers: Sequence[int]) -> Figure:
        data = cast("DrawingData", self.data)
        images, seeds = data.read(split, list(numbers)[: data.count(split)], 0)
        read = images.to(self.network.initial_canvas)
        return _figure(self.network(read, self._noise(seeds)), read)

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Returns commands that draw."""
        use = f"python -m unrolled draw {checkpoint}"
        return (f"{use} --num 16 --out canvases.png", f"{use} {self.example()} --out reconstruction.png")

    def report(self, rows: Sequence[Bounded], folder: Path) -> None:
        """Writes bounds.csv, samples.png, reconstructions.png and worst.png."""
        header = ("example", "bound", "reconstruction", "kl")
        write_rows(
            folder / "bounds.csv",
            [header, *((row.example, *(f"{n:.4f}" for n in (row.loss, row.reconstruction, row.kl))) for row in rows)],
        )
        data = cast("DrawingData", self.data)
        worst = sorted(rows, key=lambda row: (-row.loss, row.example))[:_SHOWN]
        generator = torch.Generator(device=self.device).manual_seed(int(self.info.get("seed", 0)))
        with torch.no_grad():
            figures = {
                "samples": _figure(self.network.generate(prior_draws(self.network, _SHOWN, generator))),
                "reconstructions": self._drawn_again(data.evaluated_split, [row.example for row in rows[:_SHOWN]]),
                "worst": self._drawn_again(data.evaluated_split, [row.example for row in worst]),
            }
        for name, figure in figures.items():
            save_figure(folder / f"{name}.png", figure, dpi=_DPI)
        if self.fit_started:
            self.notes |= _baseline(data)


def _summed(values: Tensor) -> Loss:
    return Loss(values.sum(), torch.full((), len(values), dtype=torch.int64, device=values.device))


def _named(bound: Bound) -> dict[str, Tensor]:
    return {"loss": bound.total, "reconstruction": bound.reconstruction, "kl": bound.kl}


def _figure(glimpses: Sequence[Glimpse], images: Tensor | None = None) -> Figure:
    """Returns `picture_of` as a figure, pixel for pixel."""
    picture = picture_of(glimpses, images)
    figure = Figure(figsize=(picture.width / _DPI, picture.height / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    figure.figimage(np.asarray(picture))
    return figure


def _baseline(data: DrawingData) -> dict[str, str | float]:
    """Returns the loss of pixels that are drawn independently, each with its mean in training as probability."""
    train, images = (data.read(split, range(data.count(split)), 0)[0] for split in ("train", data.evaluated_split))
    # Laplace's rule: a pixel that is 0 in all of training may be 1 in the test.
    means = (train.sum(0, dtype=torch.float64) + 1) / (len(train) + 2)
    loss = binary_cross_entropy(means.expand(images.shape), images.double(), reduction="sum") / len(images)
    return {"baseline/loss": float(loss), "baseline": "independent pixels, each with its mean in training"}
