"""Lines of English in Hershey's single-stroke fonts, written by a hand that slants, scales and shakes."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unrolled.training.data import shakespeare
from unrolled.training.data.base import DataError
from unrolled.training.data.rows import Row

FONTS = ("futural", "scripts")
_SPACING = 4.0  # the longest distance of two points, in units of a font whose capitals are 21 high
_SHAKE = 0.2  # standard deviation of a point
_SPEAKER = re.compile(r"^[A-Z' ]+:$", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*[,.;:!?]?")
_GLYPHS = range(32, 127)

Glyphs = dict[str, tuple[list[NDArray[np.float64]], float]]  # the strokes (points, 2) of a character, and its width


def hershey_rows(count: int, seed: int, fonts: Sequence[str], min_length: int) -> list[Row]:
    """Returns texts and strokes of random lines, in the order of the plays that the words are from.

    A line has a font, a slant, a size, a width and a direction of its own, and every point is a little off its place.
    Y increases downwards.

    Args:
        count: number of lines.
        seed: seed of everything random.
        fonts: names of fonts.
        min_length: number of characters that a line has at least; it ends with the word that reaches it.

    Raises:
        DataError: the package Hershey-Fonts is not installed, or an unknown font.
    """
    glyphs = [_glyphs(font) for font in fonts]
    words = [word for play in shakespeare.documents() for word in _WORD.findall(_SPEAKER.sub("", play))]
    generator = np.random.default_rng(seed)
    found: list[Row] = []
    for place in np.sort(generator.integers(len(words) - min_length, size=count)).tolist():
        text = words[place]
        while len(text) < min_length:
            place += 1
            text += f" {words[place]}"
        font = int(generator.integers(len(glyphs)))
        strokes = _written(text, glyphs[font], generator)
        found.append(Row({"text": text, "strokes": strokes}, f"line {len(found) + 1} in {fonts[font]}"))
    return found


def _written(text: str, glyphs: Glyphs, generator: np.random.Generator) -> list[list[list[float]]]:
    slant, direction = generator.normal(0.15, 0.15), generator.normal(0.0, 0.02)
    size, width = np.exp(generator.normal(0.0, 0.1, size=2))
    shear = np.array([[width, 0.0], [-slant, 1.0]])  # points are rows: the higher, the farther to the right
    turn = np.array([[np.cos(direction), np.sin(direction)], [-np.sin(direction), np.cos(direction)]])
    strokes = _placed(text, glyphs)
    points = np.concatenate(strokes)
    points = (points + generator.normal(0.0, _SHAKE, points.shape)) @ (size * shear @ turn)
    ends = np.cumsum([len(stroke) for stroke in strokes])
    return [stroke.tolist() for stroke in np.split(points.round(3), ends[:-1])]


def _placed(text: str, glyphs: Glyphs) -> list[NDArray[np.float64]]:
    found: list[NDArray[np.float64]] = []
    pen = 0.0
    for character in text:
        strokes, width = glyphs[character]
        found += [stroke + np.array([pen, 0.0]) for stroke in strokes]
        pen += width
    return found


def _resampled(stroke: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divides long lines into equal parts; the corners stay."""
    parts = [stroke[:1]]
    for begin, end in pairwise(stroke):
        steps = max(1, int(np.ceil(np.linalg.norm(end - begin) / _SPACING)))
        parts.append(begin + (end - begin) * (np.arange(1, steps + 1) / steps)[:, None])
    return np.concatenate(parts)


def _glyphs(font: str) -> Glyphs:
    try:
        from HersheyFonts import HersheyFonts
    except ImportError:
        raise DataError("data=hershey needs the package Hershey-Fonts: pip install 'unrolled[handwriting]'") from None
    fonts: Any = HersheyFonts()
    if font not in fonts.default_font_names:
        names = ", ".join(fonts.default_font_names)
        raise DataError(f"fonts: there is no Hershey font {font!r}; the fonts are {names}")
    fonts.load_default_font(font)
    found: Glyphs = {}
    for character in map(chr, _GLYPHS):
        (glyph,) = fonts.glyphs_for_text(character)
        strokes = [np.asarray(stroke, dtype=np.float64) - [glyph.left_offset, 0.0] for stroke in glyph.strokes]
        found[character] = [_resampled(stroke) for stroke in strokes if len(stroke)], float(glyph.char_width)
    return found
