"""Lines of Shakespeare's plays, drawn in matplotlib's fonts. The test has fonts and plays of its own."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.processing.lines import LineAugmentation
from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.examples import Example
from unrolled.training.data.shakespeare import documents
from unrolled.training.data.splitting import borders

FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "DejaVuSansMono",
    "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique", "DejaVuSerif", "DejaVuSerif-Bold",
    "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic", "cmr10", "cmb10", "cmss10", "cmti10",
)  # fmt: skip
TEST_FONTS = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta", "cmtt10")
_TALLEST = "dlfgpqj[]"  # letters and signs that reach the top and the bottom of a line
_FRACTIONS = (0.9, 0.05, 0.05)  # of the plays
_MARGIN = 0.1  # of the letters' height, above and below


class DrawnLines:
    """Draws lines of text in fonts, with noise, blur and slant. A line depends on the seed and its number alone.

    Training, validation and test have different plays, and the test has different fonts. Lines of validation and test
    have characters of the training lines alone.

    Args:
        train_size: number of lines.
        validation_size: number of lines, in the fonts of training.
        test_size: number of lines.
        max_length: maximum number of characters of a line.
        size: height of the letters in pixels.
        fonts: fonts of training and validation: files of matplotlib's without .ttf, or paths.
        test_fonts: fonts of the test.
        degradation: changes each drawn line.
        seed: seed of the texts and of the changes.

    Raises:
        DataError: a number below 1, or no font.
    """

    def __init__(
        self,
        train_size: int = 8000,
        validation_size: int = 500,
        test_size: int = 500,
        max_length: int = 28,
        size: int = 28,
        fonts: Sequence[str] = FONTS,
        test_fonts: Sequence[str] = TEST_FONTS,
        degradation: LineAugmentation | None = None,
        seed: int = 0,
    ) -> None:
        sizes = (train_size, validation_size, test_size)
        if min(*sizes, max_length, size) < 1 or not fonts or not test_fonts:
            raise DataError(
                f"train_size, validation_size and test_size={sizes}, max_length={max_length}, size={size}: must be 1 "
                f"or more; fonts={list(fonts)} and test_fonts={list(test_fonts)}: must not be empty"
            )
        self.sizes: dict[str, int] = dict(zip(SPLITS, sizes, strict=True))
        self.max_length, self.size, self.seed = max_length, size, seed
        self.fonts, self.test_fonts, self.degradation = list(fonts), list(test_fonts), degradation

    def splits(self) -> dict[str, list[Example]]:
        """Returns the lines of each split.

        Raises:
            DataError: the plays, Pillow or a font are missing, or there are too few lines of text.
        """
        found: dict[str, list[Example]] = {}
        for split, texts in _texts(self.max_length).items():
            known = {character for example in found.get("train", []) for character in example.target}
            known_texts = [text for text in texts if split == "train" or known.issuperset(text)]
            found[split] = list(self._lines(split, known_texts))
        return found

    def _lines(self, split: str, texts: Sequence[str]) -> Iterator[Example]:
        if self.sizes[split] > len(texts):
            raise DataError(f"{split}_size={self.sizes[split]}: the plays of this split have {len(texts)} such lines")
        random = Random(f"{self.seed} {split}")
        fonts = [_font(name, self.size) for name in (self.test_fonts if split == "test" else self.fonts)]
        for number, text in enumerate(random.sample(texts, self.sizes[split])):
            image = _drawn(text, fonts[number % len(fonts)])
            seed = random.getrandbits(32)
            image = image if self.degradation is None else self.degradation(image, seed)
            yield Example((image * 255).round().byte(), text, "", f"{split} line {number}")


def _texts(longest: int) -> dict[str, list[str]]:
    """Returns the distinct lines of each split's plays, without line breaks of their own."""
    plays = [re.sub(r"\s+", " ", play) for play in documents()]
    ends = borders(np.asarray([len(play) for play in plays]), _FRACTIONS, whole=True)
    places = np.cumsum([0, *map(len, plays)])[:-1]
    found: dict[str, list[str]] = {}
    for split, begin, end in zip(SPLITS, ends, ends[1:], strict=False):
        own = (play for play, place in zip(plays, places.tolist(), strict=True) if begin <= place < end)
        lines = (line for play in own for line in textwrap.wrap(play, longest, break_long_words=False))
        found[split] = list(dict.fromkeys(line for line in lines if len(line) <= longest))
    return found


def _font(name: str, size: int) -> tuple[Any, int, int]:
    """Returns a font whose letters have this height, and where they begin and end."""
    try:
        import matplotlib
        from PIL import ImageFont
    except ModuleNotFoundError as error:
        raise DataError(f"drawn lines need {error.name}: pip install 'unrolled[train,vision]'") from None
    path = Path(name) if Path(name).suffix else Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    try:
        _, top, _, bottom = ImageFont.truetype(path, 100).getbbox(_TALLEST)
        font = ImageFont.truetype(path, 100 * size / (bottom - top))
    except (OSError, ZeroDivisionError) as error:
        raise DataError(f"the font {path} cannot be used: {error}") from None
    _, top, _, bottom = font.getbbox(_TALLEST)
    return font, round(top), round(bottom)


def _drawn(text: str, font: tuple[Any, int, int]) -> Tensor:
    """Draws black letters on white, (1, height, width) from 0 to 1."""
    from PIL import Image, ImageDraw

    letters, top, bottom = font
    margin = round(_MARGIN * (bottom - top))
    left, _, right, _ = letters.getbbox(text)
    image = Image.new("L", (round(right - left) + 4 * margin, bottom - top + 2 * margin), 255)
    ImageDraw.Draw(image).text((2 * margin - left, margin - top), text, font=letters, fill=0)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, image.height, image.width) / 255
