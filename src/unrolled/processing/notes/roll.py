"""Piano rolls: which keys sound in each frame of a piece."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrolled.processing.transform import Transform
from unrolled.wording import article, counted

Frames = Sequence[Sequence[int]]
"""The MIDI pitches that sound in each frame; an empty frame is a rest."""

MAX_FRAMES = 100_000  # of a piece: hours; a damaged file may ask for more
PIANO = (21, 108)  # pitches of a piano's lowest and highest key


class PianoRoll(Transform):
    """Converts frames of MIDI pitches to rows of keys, 1 for those that sound, and back.

    Args:
        low: lowest pitch.
        high: highest pitch.
        steps_per_beat: number of frames of a quarter note, for files of notes.

    Raises:
        ValueError: not 0 ≤ low ≤ high ≤ 127, or fewer than 1 frame per beat.
    """

    def __init__(self, low: int = PIANO[0], high: int = PIANO[1], steps_per_beat: int = 1) -> None:
        if not 0 <= low <= high <= 127 or steps_per_beat < 1:
            raise ValueError(
                f"low={low}, high={high}, steps_per_beat={steps_per_beat}: expected 0 ≤ low ≤ high ≤ 127, and 1 step "
                "or more"
            )
        self.low, self.high, self.steps_per_beat = low, high, steps_per_beat

    @property
    def size(self) -> int:
        """Number of keys."""
        return self.high - self.low + 1

    def encode(self, value: Frames) -> Tensor:
        """Convert frames to (time, keys) float32.

        Raises:
            ValueError: no list of lists of pitches within the range, or no frames.
        """
        roll = torch.zeros(len(checked_frames(value)), self.size)
        for number, frame in enumerate(value):
            for pitch in frame:
                if not self.low <= pitch <= self.high:
                    raise ValueError(
                        f"frame {number + 1} has the pitch {pitch}, outside of {self.low} to {self.high}; leave it "
                        "out, or set data.low and data.high"
                    )
                roll[number, pitch - self.low] = 1.0
        return roll

    def decode(self, encoded: Tensor, given: Any = None) -> list[list[int]]:
        """Return the pitches of each frame (time, keys) whose entries are above ½, in ascending order."""
        return [[self.low + int(key) for key in row.nonzero()[:, 0]] for row in (encoded > 0.5).cpu()]

    def normalize(self, value: Frames) -> list[list[int]]:
        """Return frames with each pitch once, in ascending order."""
        return [sorted(set(frame)) for frame in checked_frames(value)]

    def collate(self, encoded: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(roll) for roll in encoded])
        return nn.utils.rnn.pad_sequence(list(encoded), batch_first=True), lengths

    def to_dict(self) -> dict[str, Any]:
        return {
            "_target_": "unrolled.PianoRoll",
            "low": self.low,
            "high": self.high,
            "steps_per_beat": self.steps_per_beat,
        }


def checked_frames(value: Any) -> Frames:
    """Return frames after a check that they are lists of MIDI pitches.

    Raises:
        ValueError: something else, no frames, or more than `MAX_FRAMES`.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"the frames are {article(type(value).__name__)}, expected a list of lists of MIDI pitches")
    if not 1 <= len(value) <= MAX_FRAMES:
        raise ValueError(f"the piece has {counted(len(value), 'frame')}, expected 1 to {MAX_FRAMES:,}")
    for number, frame in enumerate(value, start=1):
        if not isinstance(frame, list | tuple):
            raise ValueError(f"frame {number} is {frame!r:.80}, expected a list of MIDI pitches; [] is a rest")
        for pitch in frame:
            if isinstance(pitch, bool) or not isinstance(pitch, int) or not 0 <= pitch <= 127:
                raise ValueError(f"frame {number} has {pitch!r:.80}, expected MIDI pitches, from 0 to 127")
    return value


class Note(NamedTuple):
    """A note in beats, that is quarter notes, from the beginning of a piece."""

    start: float
    end: float
    pitch: int


def frames_of(notes: Iterable[Note], steps_per_beat: int) -> list[list[int]]:
    """Return the pitches that sound in each frame.

    Starts and ends are rounded to frames. A note that is shorter than a frame sounds in one if it starts near it, less
    than a quarter of a frame away; otherwise it passes between two frames.

    Args:
        notes: the notes, in any order.
        steps_per_beat: number of frames of a beat.

    Raises:
        ValueError: no notes, or a piece of more than `MAX_FRAMES`.
    """
    spans: list[tuple[int, int, int]] = []
    for note in notes:
        start, end = (_nearest(place * steps_per_beat) for place in (note.start, note.end))
        if start == end and abs(note.start * steps_per_beat - start) < 0.25:
            end += 1
        if start < end:
            spans.append((start, end, note.pitch))
    if not spans:
        raise ValueError("it has no notes")
    length = max(end for _, end, _ in spans)
    # Also the number of notes times frames, which grows with the square of a hostile file.
    if length > MAX_FRAMES or sum(end - start for start, end, _ in spans) > 128 * MAX_FRAMES:
        raise ValueError(f"its last note ends in frame {length:,}, expected {MAX_FRAMES:,} or fewer")
    frames: list[set[int]] = [set() for _ in range(length)]
    for start, end, pitch in spans:
        for frame in frames[start:end]:
            frame.add(pitch)
    return [sorted(frame) for frame in frames]


def frames_of_file(notes: Iterable[Note], path: Path, steps_per_beat: int) -> list[list[int]]:
    """Return the frames of a file's notes as `frames_of` does; the message of an error names the file."""
    try:
        return frames_of(notes, steps_per_beat)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def notes_of(frames: Frames, steps_per_beat: int) -> list[Note]:
    """Return the notes of frames; a pitch that sounds in consecutive frames is one note."""
    notes: list[Note] = []
    begun: dict[int, int] = {}
    for number, frame in enumerate([*frames, []]):
        for pitch in [pitch for pitch in begun if pitch not in frame]:
            notes.append(Note(begun.pop(pitch) / steps_per_beat, number / steps_per_beat, pitch))
        for pitch in frame:
            begun.setdefault(pitch, number)
    return sorted(notes)


def _nearest(value: float) -> int:
    """Round half up, so that equal durations stay equal; Python rounds half to even."""
    return int(value + 0.5)
