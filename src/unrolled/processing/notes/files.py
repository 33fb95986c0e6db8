"""Files of music by their suffix: read as frames, or written from them."""

import json
from pathlib import Path
from typing import Any

from unrolled import durable
from unrolled.processing.notes.midi import MIDI, read_midi, write_midi
from unrolled.processing.notes.pictures import write_picture
from unrolled.processing.notes.roll import Frames, checked_frames
from unrolled.processing.notes.scores import SCORES, read_score
from unrolled.processing.notes.sound import write_wav

WRITTEN = (".mid", ".midi", ".wav", ".png", ".jsonl")


def read_music(path: Path, steps_per_beat: int) -> list[list[int]]:
    """Return the frames of a file: MIDI, MusicXML, or JSON lines, whose first line has `frames`.

    Args:
        path: the file.
        steps_per_beat: number of frames of a quarter note, for files with notes.

    Raises:
        ValueError: a file of another kind, or one that can't be read; the message names it.
    """
    kind = path.suffix.lower()
    if kind in MIDI:
        return read_midi(path, steps_per_beat)
    if kind in SCORES:
        return read_score(path, steps_per_beat)
    if kind != ".jsonl":
        raise ValueError(f"{path}: expected a file that ends in {', '.join((*MIDI, *SCORES, '.jsonl'))}")
    try:
        with path.open(encoding="utf-8") as file:
            row: Any = json.loads(file.readline())
        if not isinstance(row, dict) or "frames" not in row:
            raise ValueError("expected an object with frames")
        return [list(frame) for frame in checked_frames(row["frames"])]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line 1: {' '.join(str(error).split()):.200}") from None


def check_written(path: Path) -> Path:
    """Return a path whose suffix names a kind of `WRITTEN`.

    Raises:
        ValueError: another suffix.
    """
    if path.suffix.lower() not in WRITTEN:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(WRITTEN)}")
    return path


def write_music(path: Path, frames: Frames, steps_per_beat: int, *, tempo: float = 90.0, given: int = 0) -> None:
    """Write frames as MIDI (.mid), sound (.wav), a picture (.png) or JSON lines (.jsonl), atomically.

    Args:
        path: the file; its suffix tells the kind.
        frames: pitches of each frame.
        steps_per_beat: number of frames of a quarter note.
        tempo: quarter notes per minute.
        given: number of first frames that were given, which a picture shows in grey.

    Raises:
        ValueError: another suffix, a tempo out of range, a package that is not installed.
        OSError: the file can't be written.
    """
    kind = check_written(path).suffix.lower()
    if kind in MIDI:
        write_midi(path, frames, steps_per_beat, tempo=tempo)
    elif kind == ".wav":
        write_wav(path, frames, steps_per_beat, tempo=tempo)
    elif kind == ".png":
        write_picture(path, frames, steps_per_beat, given=given)
    else:
        line = json.dumps({"frames": [list(frame) for frame in frames]})
        durable.replace(path, lambda partial: partial.write_text(f"{line}\n", encoding="utf-8"))
