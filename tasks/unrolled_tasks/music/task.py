"""Polyphonic music: prediction of the notes of the next frame of a piano roll (Boulanger-Lewandowski et al. 2012)."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, NamedTuple, cast

import torch

from unrolled import LabelsHead, PianoRoll, Processor
from unrolled.deployment.music import Composed, continue_piece
from unrolled.generation.limits import whole
from unrolled.heads.temperature import check_temperature
from unrolled.processing.notes.files import write_music
from unrolled.processing.notes.roll import Frames
from unrolled.training.callbacks.samples import generate
from unrolled.training.configuration.flat import flat_options
from unrolled.training.console.outputs import write_bytes, write_rows
from unrolled.training.data.streams import Window
from unrolled.training.tasks.autoregressive import AutoregressiveTask
from unrolled.training.tasks.evaluation import Scored
from unrolled.training.tasks.optimization import Optimization
from unrolled_tasks.music.data import MusicData

_NOTES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


class ScoredPiece(NamedTuple):
    """A piece of the test and its loss."""

    example: int
    frames: int
    nats: float  # of the whole piece


class Music(AutoregressiveTask):
    """Trains a decoder to predict the next frame of a piano roll.

    `loss` is the negative log-likelihood of a frame in nats, summed over all keys, averaged over all frames of the
    split; a piece's first frame is predicted from silence. Some papers leave the first frame of each piece out:
    `loss_after_first`. `accuracy` is that of Bay et al. (2009): notes that sound and are predicted, divided by notes
    that do either; a key is predicted if its probability is above one half.

    Args:
        network: description of a `Decoder` of frames.
        processor: the piano roll, as the source.
        optimization: see `SequenceTask`.
        sample_length: number of frames of a piece that is written after each validation, and after the test.
        temperature: of these; 1 for the network's distribution.

    Raises:
        ValueError: a negative length or temperature.
    """

    files: ClassVar[Mapping[str, str]] = {
        "pieces.csv": "the loss of each piece of the test",
        "continued.mid": "the beginning of a test piece, continued",
        "continued.wav": "its sound",
        "continued.png": "its piano roll; what was given is grey",
    }

    @flat_options
    def __init__(
        self,
        network: Mapping[str, Any],
        processor: Processor,
        optimization: Optimization = Optimization(),
        sample_length: int = 64,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(network=network, processor=processor, optimization=optimization)
        whole(0, sample_length=sample_length)
        check_temperature(temperature)
        self.sample_length, self.temperature = sample_length, temperature

    @property
    def roll(self) -> PianoRoll:
        """The range of keys."""
        return cast("PianoRoll", self.processor.source)

    def load_pretrained(self) -> None:
        """Begins with the share of each key in training as its probability: an even chance costs 88 × ln 2 nats."""
        head, data = self.network.head, self.data
        bias = cast("torch.Tensor | None", head.linear.bias)
        if isinstance(head, LabelsHead) and bias is not None and isinstance(data, MusicData):
            with torch.no_grad():
                bias.copy_(data.shares().logit())

    def score(self, batch: Window, loader: str) -> Scored:
        """Returns the losses, the notes of the accuracy and, for a test, the loss of each piece."""
        parameters = self.predict(batch, loader)
        head, mask = self.network.head, batch.loss_mask
        later = mask.clone()
        later[:, :1] = False
        predicted, sounding = ((keys > 0.5) & mask.unsqueeze(-1) for keys in (head.predict(parameters), batch.targets))
        sums = {
            "loss": head.loss(parameters, batch.targets, mask),
            "loss_after_first": head.loss(parameters, batch.targets, later),
            "accuracy": ((predicted & sounding).sum(), (predicted | sounding).sum()),
        }
        if loader == "validation" or batch.examples is None:
            return Scored(sums)
        nats = head.losses(parameters, batch.targets).masked_fill(~mask, 0.0).double().sum(1)
        columns = (batch.examples.tolist(), batch.lengths.tolist(), nats.tolist())
        return Scored(sums, [ScoredPiece(*row) for row in zip(*columns, strict=True)])

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Returns a command that writes a piece."""
        return (f"python -m unrolled compose {checkpoint} --frames 64 --out new.mid --out new.wav --out new.png",)

    def sample(self, generator: torch.Generator) -> str:
        """Returns a piece that the network writes, as the names of its notes."""
        return describe(self._continued((), self.sample_length, generator).frames)

    def pictures(self, generator: torch.Generator) -> dict[str, bytes]:
        """Returns a piece that the network writes, as a picture and MIDI."""
        return _files("composed", self._continued((), self.sample_length, generator), (".png", ".mid"))

    def report(self, rows: Sequence[ScoredPiece], folder: Path) -> None:
        """Writes pieces.csv, and the beginning of the first test piece, continued: continued.mid, .wav, .png."""
        data = self.data
        pieces = data.pieces(data.evaluated_split) if isinstance(data, MusicData) else None
        worst = sorted(rows, key=lambda row: -row.nats / row.frames)
        places = {row.example: row.example + 1 if pieces is None else pieces[row.example].place for row in rows}
        cells = [(places[row.example], row.frames, f"{row.nats / row.frames:.3f}") for row in worst]
        write_rows(folder / "pieces.csv", [("piece", "frames", "nats_per_frame"), *cells])
        given = (
            () if pieces is None else pieces[0].frames[: max(1, min(self.sample_length, len(pieces[0].frames)) // 2)]
        )
        seed = int(self.info.get("seed", 0))
        piece = generate(self, lambda generator: self._continued(given, self.sample_length, generator), seed)
        for name, content in _files("continued", piece, (".mid", ".wav", ".png")).items():
            write_bytes(folder / name, content)

    def _continued(self, given: Frames, frames: int, generator: torch.Generator) -> Composed:
        return continue_piece(
            self.network, self.roll, given, frames=frames, temperature=self.temperature, generator=generator
        )


def describe(frames: Frames) -> str:
    """Returns the notes of frames in words, lowest first: "C3 G3 E4 C5 ×2 | rest"."""
    chords = [" ".join(f"{_NOTES[pitch % 12]}{pitch // 12 - 1}" for pitch in frame) or "rest" for frame in frames]
    counts = [(chord, len(list(same))) for chord, same in groupby(chords)]
    return " | ".join(chord if count == 1 else f"{chord} ×{count}" for chord, count in counts)


def _files(name: str, piece: Composed, kinds: Sequence[str]) -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}{kind}" for kind in kinds]
        for path in paths:
            write_music(path, piece.frames, piece.steps_per_beat, given=piece.given)
        return {path.name: path.read_bytes() for path in paths}
