"""Pictures of piano rolls, drawn with Pillow."""

from pathlib import Path
from typing import TYPE_CHECKING

from unrolled import durable
from unrolled.processing.notes.roll import Frames, notes_of

if TYPE_CHECKING:
    from PIL.Image import Image

_BLACK = (1, 3, 6, 8, 10)  # black keys of an octave
_NOTE, _GIVEN, _EDGE = "#0072B2", "#777777", "#FFFFFF"
_WHITE_ROW, _BLACK_ROW, _LINE, _INK = "#FAFAFA", "#ECECEC", "#D0D0D0", "#333333"
_KEY, _MARGIN, _WIDEST = 8, 34, 12_000  # pixels of a key's height, of the left edge, of a picture


def draw_roll(frames: Frames, steps_per_beat: int, *, given: int = 0) -> "Image":
    """Draw notes over time: a row for each key, a line for each beat.

    Args:
        frames: pitches of each frame.
        steps_per_beat: number of frames of a quarter note.
        given: number of first frames that are drawn in grey, such as those of a prompt.

    Raises:
        ValueError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ModuleNotFoundError as error:
        raise ValueError(f"pictures need Pillow ({error}); pip install 'unrolled[music]'") from None
    pitches = [pitch for frame in frames for pitch in frame] or [60]
    low, high = max(min(pitches) - 2, 0), min(max(pitches) + 2, 127)
    step = max(1, min(14, _WIDEST // max(len(frames), 1)))
    width, height = _MARGIN + step * len(frames) + 8, _KEY * (high - low + 1)
    picture = Image.new("RGB", (width, height + 18), "white")
    pen = ImageDraw.Draw(picture)
    for pitch in range(low, high + 1):
        top = _KEY * (high - pitch)
        pen.rectangle((_MARGIN, top, width, top + _KEY - 1), _BLACK_ROW if pitch % 12 in _BLACK else _WHITE_ROW)
        if pitch % 12 == 0:
            pen.text((4, top - 2), f"C{pitch // 12 - 1}", fill=_INK)
    for number in range(0, len(frames) + 1, steps_per_beat):
        pen.line((_MARGIN + step * number, 0, _MARGIN + step * number, height), _LINE)
        beat = number // steps_per_beat
        if beat % 8 == 0:
            pen.text((_MARGIN + step * number, height + 3), str(beat), fill=_INK)
    for begin, end, colour in ((0, given, _GIVEN), (given, len(frames), _NOTE)):
        for note in notes_of(frames[begin:end], 1):
            left, right = (_MARGIN + step * int(begin + place) for place in (note.start, note.end))
            top = _KEY * (high - note.pitch)
            pen.rectangle((left, top, right - 1, top + _KEY - 1), colour, outline=_EDGE)
    return picture


def write_picture(path: Path, frames: Frames, steps_per_beat: int, *, given: int = 0) -> None:
    """Write the picture of `draw_roll` as PNG, atomically.

    Raises:
        ValueError: see `draw_roll`.
        OSError: the file can't be written.
    """
    picture = draw_roll(frames, steps_per_beat, given=given)
    durable.replace(path, lambda partial: picture.save(partial, format="png"))
