"""Pieces of music as piano rolls, in batches of whole pieces or in windows of truncated backpropagation."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unrolled import PianoRoll, Processor, build_processor
from unrolled.training.configuration.flat import flat_options
from unrolled.training.data.base import DataError
from unrolled.training.data.bucketed import BucketData, Examples
from unrolled.training.data.buckets import BatchSpec
from unrolled.training.data.cache import cache_folder
from unrolled.training.data.loader import PlannedLoader
from unrolled.training.data.options import Batching, SourceOptions
from unrolled.training.data.plans import StreamPlan, WindowSpec
from unrolled.training.data.splitting import Split
from unrolled.training.data.streams import Window, token_window
from unrolled_tasks.music.chorales import chorale_rows
from unrolled_tasks.music.sources import Piece, read_pieces

Ints = NDArray[np.int64]


class Rolls:
    """The frames of a split's pieces end to end, as keys, in any transposition.

    Args:
        rolls: (time, keys) of each piece.
        semitones: largest transposition, up or down, that an epoch may draw for a piece.
        seed: seed of the transpositions, together with the epoch.
    """

    def __init__(self, rolls: Sequence[Tensor], semitones: int = 0, seed: int = 0) -> None:
        self.keys = torch.cat(list(rolls)).to(torch.uint8)
        self.lengths = np.array([len(roll) for roll in rolls], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self._piece = torch.repeat_interleave(torch.as_tensor(self.lengths))
        self._ranges = np.array([_range(roll, semitones) for roll in rolls]).reshape(-1, 2)
        self._seed, self._drawn = seed, (-1, torch.zeros(0, dtype=torch.int64))

    def of_epoch(self, epoch: int) -> "TransposedRolls":
        """Returns the pieces as an epoch reads them, each in a key of its own within the range of the keys."""
        if self._drawn[0] != epoch:
            low, high = self._ranges.T
            drawn = np.random.default_rng((self._seed, epoch)).integers(low, high, endpoint=True)
            self._drawn = epoch, torch.as_tensor(drawn)
        return TransposedRolls(self.keys, self._piece, self._drawn[1])


@dataclass(frozen=True)
class TransposedRolls:
    """Pieces end to end, each moved by a number of semitones; see `token_window`."""

    keys: Tensor  # (steps, keys) uint8
    piece: Tensor  # (steps,) number of the piece of each frame
    semitones: Tensor  # (pieces,)

    def __len__(self) -> int:
        return len(self.keys)

    def gather(self, positions: Ints) -> Tensor:
        """Returns the frames at these positions, (…, keys) float32."""
        places = torch.as_tensor(positions)
        frames = self.keys[places].float()
        # What moves over one end is silent, since a transposition keeps all notes.
        moved = torch.arange(frames.shape[-1]) - self.semitones[self.piece[places]].unsqueeze(-1)
        return frames.gather(-1, moved % frames.shape[-1])


def _range(roll: Tensor, semitones: int) -> tuple[int, int]:
    """Returns the furthest transpositions, down and up, at which all notes stay on the keys."""
    sounding = roll.any(0).nonzero()[:, 0].tolist() or [0]
    return -min(semitones, sounding[0]), min(semitones, roll.shape[1] - 1 - sounding[-1])


class MusicData(BucketData[Window]):
    """Pieces of music. The network reads each frame and predicts the next; the first one from silence.

    Args:
        origin: files or a data set; fields of this and of the other options can be arguments, too. Files are MIDI,
            MusicXML, or tables with a list of lists of MIDI pitches in each row.
        chorales: number of Bach's chorales, a set that needs no file.
        column: column of the frames.
        low: lowest pitch.
        high: highest pitch.
        steps_per_beat: number of frames of a quarter note, for MIDI, MusicXML and chorales.
        semitones: training pieces are moved up or down by up to this number of semitones, drawn for each epoch.
        window: steps of truncated backpropagation in training, through `batch_size` streams of pieces; None for whole
            pieces.
        batching: batches of pieces of similar length, or the number of streams.
        split: fractions for splits without their own pieces; the last ones are for the test.
        processor_from: the processor of a trained network, as its `to_dict` wrote it.
        cache: folder of prepared data; None for $UNROLLED_CACHE or ~/.cache/unrolled.

    Raises:
        DataError: no source or several, or invalid options.
        ValueError: pitches that MIDI doesn't have.
    """

    @flat_options
    def __init__(
        self,
        origin: SourceOptions = SourceOptions(),
        chorales: int | None = None,
        column: str = "frames",
        low: int = 21,
        high: int = 108,
        steps_per_beat: int = 1,
        semitones: int = 0,
        window: int | None = None,
        batching: Batching = Batching(batch_size=8),
        split: Split = Split(split_fractions=(0.8, 0.1, 0.1)),
        processor_from: Mapping[str, Any] | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        origin.check_exactly_one("music", chorales=chorales)
        if (chorales is not None and chorales < 1) or semitones < 0 or (window is not None and window < 1):
            raise DataError(
                f"chorales={chorales}, semitones={semitones}, window={window}: expected 1 or more chorales and steps, "
                "and 0 or more semitones"
            )
        if window is not None and batching.batch_size is None:
            raise DataError(
                f"window={window} needs batch_size, the number of streams; batch_tokens is for whole pieces"
            )
        self._origin, self._chorales, self._column, self._split = origin, chorales, column, split
        self._semitones, self._window, self.batching = semitones, window, batching
        self._cache = cache_folder(cache)
        self._roll = PianoRoll(low, high, steps_per_beat)
        if processor_from is not None:
            self._roll = _piano_roll(build_processor(processor_from))
        self._pieces: dict[str, list[Piece]] = {}
        self._rolls: dict[str, Rolls] = {}

    def prepare(self) -> None:
        """See `SequenceData.prepare`."""
        if self._pieces:
            return
        steps = self._roll.steps_per_beat
        default = None if self._chorales is None else chorale_rows(self._chorales, steps, self._cache)
        found = read_pieces(self._origin, self._split, self._column, steps, default)
        for split, pieces in found.items():
            if not pieces:
                raise DataError(f"the {split} split has no pieces")
            semitones = self._semitones if split == "train" else 0
            self._rolls[split] = Rolls([self._encoded(piece) for piece in pieces], semitones, self.batching.seed)
        self._pieces = found

    def _encoded(self, piece: Piece) -> Tensor:
        try:
            return self._roll.encode(piece.frames)
        except ValueError as error:
            raise DataError(f"{piece.place}: {error}") from None

    def sizes(self) -> dict[str, int]:
        return {"keys": self._roll.size}

    def processor(self) -> Processor:
        return Processor(self._roll)

    def splits(self) -> Sequence[str]:
        """See `SequenceData.splits`."""
        return tuple(self._pieces)

    def pieces(self, split: str) -> Sequence[Piece]:
        """Returns the pieces of a split. Call `prepare` first."""
        return self._pieces[split]

    def shares(self) -> Tensor:
        """Returns the share of the training frames in which each key sounds, (keys,), never 0 or 1."""
        rolls = self._rolls["train"].of_epoch(0)
        frames = rolls.gather(np.arange(len(rolls)))
        return (frames.sum(0) + 0.5) / (len(frames) + 1.0)

    def describe(self) -> str:
        """See `SequenceData.describe`."""
        counts = ", ".join(f"{split} {len(pieces):,}" for split, pieces in self._pieces.items())
        frames = sum(len(rolls.keys) for rolls in self._rolls.values())
        notes = sum(int(rolls.keys.sum()) for rolls in self._rolls.values())
        return (
            f"{counts} pieces with {frames:,} frames of {self._roll.size} keys, {notes / frames:.1f} of which sound; "
            f"scored: {self.evaluated_split}"
        )

    def fingerprint(self) -> str:
        """See `SequenceData.fingerprint`."""
        train = self._pieces.get("train")
        return "" if train is None else hashlib.sha256(repr([piece.frames for piece in train]).encode()).hexdigest()

    def own_files(self) -> str:
        """See `SequenceData.own_files`."""
        return "data=pieces data.files=FILE 'data.split_fractions=[0,0,1]'"

    def examples(self, split: str, *, scored: bool) -> Examples:
        """See `BucketData.examples`."""
        lengths = self._rolls[split].lengths
        return Examples(lengths[:, None], lengths)

    def train_dataloader(self) -> PlannedLoader[Any, Any, Window]:
        """Returns the loader of one process's training batches: windows of streams, or whole pieces."""
        if self._window is None or "train" not in self._pieces:
            return super().train_dataloader()
        rolls = self._rolls["train"]
        plan = StreamPlan(
            rolls.lengths,
            rows=(self.batching.batch_size or 1) * self.planned_ranks,
            ranks=self.ranks,
            window=self._window,
            concatenate=False,
            shift=True,
            seed=self.batching.seed,
        )
        if len(rolls.lengths) < plan.rows:
            raise DataError(
                f"{len(rolls.lengths)} training pieces are too few for {plan.rows} streams of whole pieces; lower "
                "batch_size, or set window=null"
            )
        return PlannedLoader(
            plan,
            rolls,
            _window,
            rank=self.rank,
            workers=self.batching.workers,
            restart=self.repeated,
            accumulate=self.accumulate,
            limit=self.limit,
        )

    def batch(self, split: str, spec: BatchSpec, scale: float, *, scored: bool) -> Window:
        """See `BucketData.batch`; a window of whole pieces."""
        rolls = self._rolls[split]
        lengths = rolls.lengths[spec.rows]
        opens = np.zeros((len(lengths), int(lengths.max(initial=0))), dtype=np.bool_)
        opens[:, :1] = True
        whole = WindowSpec(
            begins=rolls.starts[spec.rows],
            lengths=lengths,
            skipped=np.zeros_like(lengths),
            reset=np.ones(len(lengths), dtype=np.bool_),
            opens=opens,
            carry=0,
            time=opens.shape[1],
            epoch=spec.epoch,
        )
        return _window(rolls, whole, scale)._replace(examples=torch.as_tensor(spec.rows))


def _window(rolls: Rolls, spec: WindowSpec, scale: float) -> Window:
    return token_window(rolls.of_epoch(spec.epoch), spec, scale, start=0.0)


def _piano_roll(processor: Processor) -> PianoRoll:
    source, target = processor
    if not isinstance(source, PianoRoll) or target is not None:
        raise DataError("the processor is of another task: music needs a piano roll, and no target")
    return source
