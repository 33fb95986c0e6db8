"""Images without a download: characters of matplotlib's fonts, with their Unicode names as captions."""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from unrolled.training.data.arrays import EncodedImage
from unrolled.training.data.base import SPLITS
from unrolled.training.data.sources import Source
from unrolled.training.data.splitting import split_of_name
from unrolled_tasks.captioning.sources import CaptionedImage

_STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
_SERIFS = ("", "-Bold", "-Italic", "-BoldItalic")
FACES = (
    *(f"DejaVuSans{style}" for style in _STYLES),
    *(f"DejaVuSansMono{style}" for style in _STYLES),
    *(f"DejaVuSerif{style}" for style in _SERIFS),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
_SIZES = (0.62, 0.7, 0.78)  # heights of the em square, as fractions of the image
_LEFT_OUT = ("CJK", "HANGUL", "VARIATION")  # names that contain a number instead of a description


class GlyphSource(Source[CaptionedImage]):
    """Characters and their official names: "LATIN SMALL LETTER E WITH ACUTE", "LEFTWARDS ARROW WITH TAIL".

    Characters that look the same are one character with several names, such as the Latin, Greek and Cyrillic A. Splits
    differ in these shapes, so that the name of an unseen character has to be composed from its parts. Training
    characters are drawn in several faces (weights, slants, serifs) and sizes, each as an image. Characters for scoring
    are drawn once, at the middle size, upright in DejaVu Sans or else in the first face that has them.

    Args:
        count: maximum number of training images of each character.
        size: side of an image in pixels.
        split_fractions: fractions of the characters for training, validation and test.
        seed: seed of the choice of faces and sizes.
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
            "version": 3,  # increase it when the same options give other images or names
            "options": [self._count, self._size, self._split_fractions, self._seed],
            "versions": [matplotlib.__version__, unicodedata.unidata_version],
        }

    def read(self, split: str) -> Iterator[CaptionedImage]:
        for codes, faces in self._shapes:
            names = tuple(unicodedata.name(chr(code)) for code in codes)
            if split_of_name(names[0], self._split_fractions) != split:
                continue
            drawings = self._drawings(codes[0], faces) if split == "train" else [(faces[0], _SIZES[1])]
            for number, (face, size) in enumerate(drawings):
                picture = EncodedImage(self._draw(codes[0], face, size), "")
                yield CaptionedImage(picture, names, f"U+{codes[0]:04X} {number}")

    @cached_property
    def _shapes(self) -> list[tuple[list[int], list[str]]]:
        """Groups of code points that look the same, with the faces of the first."""
        alike: dict[bytes, tuple[list[int], list[str]]] = {}
        for code, faces in self._characters:
            alike.setdefault(self._draw(code, faces[0], _SIZES[1]), ([], faces))[0].append(code)
        return list(alike.values())

    @cached_property
    def _characters(self) -> list[tuple[int, list[str]]]:
        """Code points with a name, and the faces that contain them, the plain face first."""
        from matplotlib.ft2font import FT2Font

        drawable: dict[int, list[str]] = {}
        for face in FACES:
            font = FT2Font(str(_folder() / f"{face}.ttf"))
            for code in font.get_charmap():
                drawable.setdefault(code, []).append(face)
        return [(code, faces) for code, faces in sorted(drawable.items()) if _is_named_by_shape(chr(code))]

    def _drawings(self, code: int, faces: Sequence[str]) -> list[tuple[str, float]]:
        """Returns pairs of face and size; every face occurs once before any occurs twice."""
        start = (code * 7 + self._seed) % len(faces)
        turned = [*faces[start:], *faces[:start]]
        every = [
            (face, _SIZES[(turn + number) % len(_SIZES)]) for turn in range(3) for number, face in enumerate(turned)
        ]
        return every[: self._count]

    def _draw(self, code: int, face: str, share: float) -> bytes:
        """Returns a PNG image, black on white, with the baseline at a fixed height."""
        character = chr(code)
        pixels = self._size * 4  # drawn large and scaled down, so that thin strokes remain visible
        image = Image.new("L", (pixels, pixels), 255)
        font = _font(face, round(pixels * share))
        left, _, right, _ = font.getbbox(character, anchor="ls")
        place = ((pixels - left - right) / 2, pixels * 0.74)
        ImageDraw.Draw(image).text(place, character, fill=0, font=font, anchor="ls")
        encoded = BytesIO()
        image.resize((self._size, self._size), Image.Resampling.BOX).save(encoded, "PNG")
        return encoded.getvalue()


@cache
def _font(face: str, pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_folder() / f"{face}.ttf"), pixels)


def _folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def _is_named_by_shape(character: str) -> bool:
    name = unicodedata.name(character, "")
    styled = unicodedata.decomposition(character).startswith("<font>")  # "MATHEMATICAL BOLD A" looks like a bold face
    return (
        bool(name) and not name.startswith(_LEFT_OUT) and unicodedata.category(character)[0] not in "CZM" and not styled
    )
