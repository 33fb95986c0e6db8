"""Handwriting: prediction of a pen's next point, and synthesis from a text (Graves 2013)."""

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from unrolled import Decoder, EncoderDecoder, MixtureHead, Processor, WindowAttention
from unrolled.deployment.handwriting import Written, continue_with, write_with
from unrolled.deployment.page import to_svg
from unrolled.losses import Loss
from unrolled.models.decoders.base import Decoded
from unrolled.processing.strokes import Strokes
from unrolled.sequences import mask_from_lengths
from unrolled.training.callbacks.samples import generate
from unrolled.training.configuration.flat import flat_options
from unrolled.training.console.outputs import save_figure, write_rows, write_text
from unrolled.training.data.base import SequenceData
from unrolled.training.tasks.base import SequenceTask
from unrolled.training.tasks.evaluation import Scored
from unrolled.training.tasks.optimization import Optimization
from unrolled.wording import article
from unrolled_tasks.handwriting.data import HandwritingData, StrokesBatch
from unrolled_tasks.handwriting.drawing import draw_lines, draw_window


class ScoredLine(NamedTuple):
    """A line of the test and its loss."""

    example: int
    text: str
    points: int
    nats: float  # of the whole line


class Handwriting(SequenceTask):
    """Trains a network to predict the next point of a pen.

    The loss is the negative log density of a point, in nats; a line's first point is given.

    Args:
        network: an `EncoderDecoder` with a `WindowAttention`, for synthesis; or a `Decoder`, for prediction.
        processor: see `SequenceTask`.
        optimization: see `SequenceTask`.
        clip_outputs: limit of the derivative of a line's summed loss by each output of the network (Graves 2013,
            section 4.2); None for no limit.
        bias: neatness of what is written while training and after the test; see `unrolled.deployment.write`.
        num_written: number of lines that are written after each validation.
        num_tested: number of test texts that are written after the test.

    Raises:
        ValueError: a network of another kind, a limit or a number that isn't above 0.
    """

    files: ClassVar[Mapping[str, str]] = {
        "written.svg": "texts of the test, as the network writes them",
        "window.png": "the window over the characters of a text",
        "lines.csv": "the loss of each line of the test",
    }

    @flat_options
    def __init__(
        self,
        network: Mapping[str, Any],
        processor: Processor,
        optimization: Optimization = Optimization(),
        clip_outputs: float | None = 100.0,
        bias: float = 0.5,
        num_written: int = 4,
        num_tested: int = 16,
    ) -> None:
        super().__init__(network=network, processor=processor, optimization=optimization)
        if (clip_outputs is not None and not clip_outputs > 0) or bias < 0 or min(num_written, num_tested) < 1:
            raise ValueError(
                f"clip_outputs={clip_outputs}, bias={bias}, num_written={num_written}, num_tested={num_tested}: "
                "expected numbers above 0, a bias of 0 or more; clip_outputs=null sets no limit"
            )
        _check_network(self.network)
        self._clip_outputs, self._bias = clip_outputs, bias
        self._num_written, self._num_tested = num_written, num_tested

    def attach(self, data: SequenceData) -> None:
        """See `SequenceTask.attach`.

        Raises:
            ValueError: data of another kind.
        """
        if not isinstance(data, HandwritingData):
            raise ValueError(
                f"{type(self).__name__} needs handwriting, not {article(type(data).__name__)}; choose data=hershey or "
                "data=strokes, or another task=…"
            )
        super().attach(data)

    @property
    def decoder(self) -> Decoder:
        """The part of the network that predicts points."""
        decoder: Any = getattr(self.network, "decoder", self.network)
        return decoder

    def decode(self, batch: StrokesBatch) -> Decoded:
        """Returns what the network predicts of each point of a batch, given those before it."""
        if batch.source is None:
            return self.network(batch.inputs, lengths=batch.lengths)
        return self.network(batch.source, batch.source_lengths, batch.inputs, batch.lengths)

    def loss(self, batch: StrokesBatch, loader: str) -> Loss:
        """Returns the summed loss of the points (nats)."""
        return self._loss(batch, self.decode(batch).parameters)

    def _loss(self, batch: StrokesBatch, parameters: Tensor) -> Loss:
        return self.decoder.head.loss(parameters, batch.targets, mask_from_lengths(batch.lengths, parameters.shape[1]))

    def training_step(self, batch: StrokesBatch, batch_idx: int) -> Tensor:
        """Returns the batch's share of the optimizer step's mean loss."""
        parameters = self.decode(batch).parameters
        if self._clip_outputs is not None and parameters.requires_grad:
            limit = self._clip_outputs * batch.scale  # the loss is scaled before backward
            parameters.register_hook(partial(torch.clamp, min=-limit, max=limit))
        loss = self._loss(batch, parameters)
        self.log_step("train/loss", loss.mean.detach(), prog_bar=True, batch_size=len(batch.lengths))
        return loss.total * batch.scale + self.penalty()

    def score(self, batch: StrokesBatch, loader: str) -> Scored:
        """Returns nats per point and per line, and the loss of each line."""
        parameters = self.decode(batch).parameters
        mask = mask_from_lengths(batch.lengths, parameters.shape[1])
        hidden = ~mask.unsqueeze(-1)
        losses = self.decoder.head.losses(parameters.masked_fill(hidden, 0.0), batch.targets.masked_fill(hidden, 0.0))
        losses = losses.masked_fill(~mask, 0.0)
        total, lines = losses.double().sum(), len(losses)
        rows = [
            ScoredLine(example, line.text, points, nats)
            for example, line, points, nats in zip(
                batch.examples.tolist(), batch.lines, batch.lengths.tolist(), losses.sum(1).tolist(), strict=True
            )
        ]
        count = torch.tensor(lines, device=total.device)
        return Scored({"loss": Loss(total, mask.sum()), "line_loss": Loss(total, count)}, rows)

    def pictures(self, generator: torch.Generator) -> Mapping[str, Figure | str]:
        """Returns the first validation texts as the network writes them, and its window over the first."""
        return self._pictures(generator, "validation", self._num_written)[0]

    def _pictures(
        self, generator: torch.Generator, split: str, count: int
    ) -> tuple[dict[str, Figure | str], list[Written]]:
        tokenizer: Any = self.processor.source
        if not isinstance(self.network, EncoderDecoder):
            drawn = continue_with(self.network, self.processor, count, bias=self._bias, generator=generator)
            return {"written.svg": to_svg(drawn), "written.png": draw_lines(drawn, [""] * count)}, []
        texts = [line.text for line in self.data.lines(split, count)] if isinstance(self.data, HandwritingData) else []
        if not texts:
            return {}, []
        written = write_with(self.network, self.processor, texts, bias=self._bias, generator=generator)
        lines: list[Strokes] = [one.strokes for one in written]
        symbols = tokenizer.symbols(tokenizer.encode(texts[0]))
        return {
            "written.svg": to_svg(lines),
            "written.png": draw_lines(lines, texts),
            "window.png": draw_window(written[0], symbols),
        }, written

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Returns a command that writes."""
        text = self.example()
        return (
            f"python -m unrolled write {checkpoint} {shlex.quote(text) + ' ' if text else ''}--bias 1 --out page.svg",
        )

    def report(self, rows: Sequence[ScoredLine], folder: Path) -> None:
        """Writes lines.csv, written.svg and window.png; notes the share of texts that were written to their end."""
        table = [(row.example, row.text, row.points, f"{row.nats:.2f}") for row in rows]
        write_rows(folder / "lines.csv", [("line", "text", "points", "nats"), *table])
        if self.data is None:
            return
        draw = partial(self._pictures, split=self.data.evaluated_split, count=self._num_tested)
        found, written = generate(self, draw, 0)
        for name, picture in found.items():
            if isinstance(picture, str):
                write_text(folder / name, picture)
            elif name in self.files:
                save_figure(folder / name, picture, dpi=120)
        if written:
            self.notes["written/finished"] = sum(one.finished for one in written) / len(written)


def _check_network(network: Any) -> None:
    decoder = network.decoder if isinstance(network, EncoderDecoder) else network
    if not isinstance(decoder, Decoder) or not isinstance(decoder.head, MixtureHead) or decoder.head.target_size != 3:
        raise ValueError("handwriting needs a decoder with a MixtureHead of two coordinates and an end_of_stroke")
    if isinstance(network, EncoderDecoder) and not isinstance(getattr(decoder, "attention", None), WindowAttention):
        raise ValueError("synthesis needs a WindowAttention, which tells where a text ends")
