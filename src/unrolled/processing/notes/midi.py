"""MIDI files, read and written with pretty_midi."""

import io
import warnings
from pathlib import Path
from typing import Any

from unrolled import durable
from unrolled.processing.notes.roll import Frames, Note, frames_of_file, notes_of

MIDI = (".mid", ".midi")
INSTALL = "pip install 'unrolled[music]'"


def pretty_midi() -> Any:
    """Import the package.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import pretty_midi as found
    except ModuleNotFoundError as error:
        raise ValueError(f"MIDI files and sound need pretty_midi ({error}); {INSTALL}") from None
    return found


def read_midi(path: Path, steps_per_beat: int) -> list[list[int]]:
    """Return the frames of a MIDI file; drums are left out.

    Args:
        path: the file.
        steps_per_beat: number of frames of a quarter note. Tempo changes have no effect.

    Raises:
        ValueError: a file that can't be read as MIDI, has no notes or is too long; the message names it.
    """
    package = pretty_midi()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        notes = _notes(package, content)
    except Exception as error:  # damaged files raise almost any exception in the parser
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is not a readable MIDI file: {reason:.200}") from None
    return frames_of_file(notes, path, steps_per_beat)


def write_midi(path: Path, frames: Frames, steps_per_beat: int, *, tempo: float = 90.0, program: int = 0) -> None:
    """Write frames as a MIDI file of one track, atomically; see `to_midi`.

    Raises:
        OSError: the file can't be written.
    """
    found = to_midi(frames, steps_per_beat, tempo=tempo, program=program)
    durable.replace(path, lambda partial: found.write(str(partial)))


def to_midi(frames: Frames, steps_per_beat: int, *, tempo: float = 90.0, program: int = 0) -> Any:
    """Convert frames to a `pretty_midi.PrettyMIDI`.

    Args:
        frames: pitches of each frame; one that sounds in consecutive frames is one long note.
        steps_per_beat: number of frames of a quarter note.
        tempo: quarter notes per minute.
        program: General MIDI's number of the instrument, from 0 for the piano.

    Raises:
        ValueError: a tempo outside 1 to 1,000, or another program than 0 to 127.
    """
    if not 1.0 <= tempo <= 1000.0 or not 0 <= program <= 127:
        raise ValueError(f"tempo={tempo}, program={program}: expected 1 to 1000 beats per minute, and 0 to 127")
    package = pretty_midi()
    found = package.PrettyMIDI(resolution=480, initial_tempo=tempo)
    instrument = package.Instrument(program)
    seconds = 60.0 / tempo
    instrument.notes = [
        package.Note(80, note.pitch, note.start * seconds, note.end * seconds)
        for note in notes_of(frames, steps_per_beat)
    ]
    found.instruments.append(instrument)
    return found


def _notes(package: Any, content: bytes) -> list[Note]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of events in the wrong track
        found = package.PrettyMIDI(io.BytesIO(content))
    beat = found.resolution
    return [
        Note(found.time_to_tick(note.start) / beat, found.time_to_tick(note.end) / beat, note.pitch)
        for instrument in found.instruments
        if not instrument.is_drum
        for note in instrument.notes
    ]
