"""Pictures that need no download: characters in the fonts that matplotlib ships, named as Unicode names them."""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from unrolled.training.data.arrays import Picture
from unrolled.training.data.base import SPLITS
from unrolled.training.data.seq2seq import share_of
from unrolled_tasks.captioning.sources import Captioned, Source

_STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
_SERIFS = ("", "-Bold", "-Italic", "-BoldItalic")
FACES = (
    *(f"DejaVuSans{style}" for style in _STYLES),
    *(f"DejaVuSansMono{style}" for style in _STYLES),
    *(f"DejaVuSerif{style}" for style in _SERIFS),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
_SIZES = (0.62, 0.7, 0.78)  # heights of the em square, as shares of the picture
_LEFT_OUT = ("CJK", "HANGUL", "VARIATION")  # names that spell a number instead of what is seen


class GlyphSource(Source):
    """Characters and their official names: "LATIN SMALL LETTER E WITH ACUTE", "LEFTWARDS ARROW WITH TAIL".

    Characters that look the same are one, with several names: the Latin, the Greek and the Cyrillic A. The splits are
    split by what characters look like, so that the name of an unseen one has to be composed from what is seen. Training
    characters are drawn in several faces (weights, slants, serifs) and sizes, each a picture of its own; those that are
    scored once, upright in DejaVu Sans at the middle size where it has them, else in the first face that has.

    Args:
        count: training pictures of each character at most.
        size: pixels of a side.
        split_fractions: shares of the characters for training, validation and test.
        seed: decides which faces and sizes are drawn.
    """

    def __init__(self, count: int, size: int, split_fractions: Sequence[float], seed: int) -> None:
        self._count, self._size, self._split_fractions, self._seed = count, size, list(split_fractions), seed

    def __str__(self) -> str:
        return "glyphs of DejaVu and STIX"

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(split for split, share in zip(SPLITS, self._split_fractions, strict=True) if share > 0)

    def fingerprint(self) -> dict[str, Any]:
        import matplotlib

        return {
            "version": 3,  # raise it when the same options lead to other pictures or names
            "options": [self._count, self._size, self._split_fractions, self._seed],
            "versions": [matplotlib.__version__, unicodedata.unidata_version],
        }

    def images(self, split: str) -> Iterator[Captioned]:
        for codes, faces in self._shapes:
            names = tuple(unicodedata.name(chr(code)) for code in codes)
            if share_of(names[0], self._split_fractions) != split:
                continue
            drawings = self._drawings(codes[0], faces) if split == "train" else [(faces[0], _SIZES[1])]
            for number, (face, size) in enumerate(drawings):
                picture = Picture(self._draw(codes[0], face, size), "")
                yield Captioned(picture, names, f"U+{codes[0]:04X} {number}")

    @cached_property
    def _shapes(self) -> list[tuple[list[int], list[str]]]:
        """Code points that look the same, with the faces of the first."""
        alike: dict[bytes, tuple[list[int], list[str]]] = {}
        for code, faces in self._characters:
            alike.setdefault(self._draw(code, faces[0], _SIZES[1]), ([], faces))[0].append(code)
        return list(alike.values())

    @cached_property
    def _characters(self) -> list[tuple[int, list[str]]]:
        """Code points that a face can draw and that have a name, with their faces, the plain one first."""
        from matplotlib.ft2font import FT2Font

        drawable: dict[int, list[str]] = {}
        for face in FACES:
            font = FT2Font(str(_folder() / f"{face}.ttf"))
            for code in font.get_charmap():
                drawable.setdefault(code, []).append(face)
        return [(code, faces) for code, faces in sorted(drawable.items()) if _is_told_by_its_shape(chr(code))]

    def _drawings(self, code: int, faces: Sequence[str]) -> list[tuple[str, float]]:
        """Faces and sizes, each face before any comes twice."""
        start = (code * 7 + self._seed) % len(faces)
        turned = [*faces[start:], *faces[:start]]
        every = [
            (face, _SIZES[(turn + number) % len(_SIZES)]) for turn in range(3) for number, face in enumerate(turned)
        ]
        return every[: self._count]

    def _draw(self, code: int, face: str, share: float) -> bytes:
        """A PNG, black on white, the baseline always at the same height."""
        character = chr(code)
        pixels = self._size * 4  # drawn large and made small: the thinnest stroke leaves a trace
        image = Image.new("L", (pixels, pixels), 255)
        font = _font(face, round(pixels * share))
        left, _, right, _ = font.getbbox(character, anchor="ls")
        place = ((pixels - left - right) / 2, pixels * 0.74)
        ImageDraw.Draw(image).text(place, character, fill=0, font=font, anchor="ls")
        written = BytesIO()
        image.resize((self._size, self._size), Image.Resampling.BOX).save(written, "PNG")
        return written.getvalue()


@cache
def _font(face: str, pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_folder() / f"{face}.ttf"), pixels)


def _folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def _is_told_by_its_shape(character: str) -> bool:
    name = unicodedata.name(character, "")
    styled = unicodedata.decomposition(character).startswith("<font>")  # "MATHEMATICAL BOLD A": what a face is, too
    return (
        bool(name) and not name.startswith(_LEFT_OUT) and unicodedata.category(character)[0] not in "CZM" and not styled
    )
