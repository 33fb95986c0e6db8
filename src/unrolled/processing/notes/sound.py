"""Sound of frames: pretty_midi's synthesizer, written as WAV."""

import io
import wave
from pathlib import Path
from typing import Any

import torch

from unrolled import durable
from unrolled.processing.notes.midi import to_midi
from unrolled.processing.notes.roll import Frames

RATE = 22_050  # hertz
MAX_SECONDS = 3600
_HARMONICS = (1.0, 0.5, 0.25, 0.12, 0.06)  # amplitudes, a soft organ


def to_wav(frames: Frames, steps_per_beat: int, *, tempo: float = 90.0) -> bytes:
    """Return the sound of frames as the content of a mono WAV file of 16 bits.

    Args:
        frames: pitches of each frame.
        steps_per_beat: number of frames of a quarter note.
        tempo: quarter notes per minute.

    Raises:
        ValueError: see `to_midi`; more than an hour of sound.
    """
    score = to_midi(frames, steps_per_beat, tempo=tempo)
    if (seconds := score.get_end_time()) > MAX_SECONDS:
        raise ValueError(f"the sound would last {seconds:,.0f} seconds, expected {MAX_SECONDS:,} or less; write MIDI")
    samples = score.synthesize(fs=RATE, wave=_tone)
    peak = max(abs(samples).max(initial=0.0), 1e-9)
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * (0.9 * 32767 / peak)).astype("<i2").tobytes())
    return content.getvalue()


def write_wav(path: Path, frames: Frames, steps_per_beat: int, *, tempo: float = 90.0) -> None:
    """Write the result of `to_wav`, atomically.

    Args:
        path: the file.
        frames: see `to_wav`.
        steps_per_beat: see `to_wav`.
        tempo: see `to_wav`.

    Raises:
        ValueError: see `to_wav`.
        OSError: the file can't be written.
    """
    content = to_wav(frames, steps_per_beat, tempo=tempo)
    durable.replace(path, lambda partial: partial.write_bytes(content))


def _tone(phases: Any) -> Any:
    """Return a periodic wave at phases in radians, as an array of numpy."""
    angles = torch.from_numpy(phases)
    waves = [height * (number * angles).sin() for number, height in enumerate(_HARMONICS, start=1)]
    return torch.stack(waves).sum(0).numpy()
