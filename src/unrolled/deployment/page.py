"""A page of handwriting: its lines of text, a primer from a file, and strokes as SVG."""

import json
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unrolled.deployment.handwriting import Primer
from unrolled.processing.strokes import Strokes, check_strokes

_PEN = 0.05  # width of the pen, as a share of a line's height


def break_lines(text: str, length: int) -> list[str]:
    """Break a text into lines between words; lines that it has already stay, empty ones don't.

    Args:
        text: the text.
        length: number of characters of a line, unless a word is longer.

    Raises:
        ValueError: a length below 1, or a text without words.
    """
    if length < 1:
        raise ValueError(f"a line of {length} characters: expected 1 or more")
    lines = [
        broken
        for line in text.splitlines()
        for broken in textwrap.wrap(line.strip(), length, break_long_words=False, break_on_hyphens=False)
    ]
    if not lines:
        raise ValueError("there is nothing to write: the text has no words")
    return lines


def read_primer(path: Path) -> Primer:
    """Read the first line of a file of JSON lines, an object with a text and its strokes.

    Raises:
        ValueError: another content, with file and line.
    """
    with path.open("rb") as file:
        first = file.readline()
    try:
        found: Any = json.loads(first)
        if not isinstance(found, dict) or not isinstance(found.get("text", ""), str):
            raise ValueError('expected an object {"text": "…", "strokes": [[[x, y], …], …]}')
        return Primer(found.get("text", ""), check_strokes(found.get("strokes")))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line 1: {error}") from None


def to_svg(lines: Sequence[Strokes]) -> str:
    """Draw lines below one another as an SVG picture of black strokes on white, in the units of the strokes.

    Raises:
        ValueError: no strokes.
    """
    boxes = [_box(strokes) for strokes in lines]
    if not boxes:
        raise ValueError("there are no lines to draw")
    height = max(1e-6, *(bottom - top for _, top, _, bottom in boxes))
    margin = height / 2
    places = max(1, 2 - math.floor(math.log10(height)))  # of decimals: strokes may have any unit
    width = max(right - left for left, _, right, _ in boxes) + 2 * margin
    paths: list[str] = []
    down = margin
    for strokes, (left, top, _, bottom) in zip(lines, boxes, strict=True):
        paths += [_path(stroke, margin - left, down - top, places) for stroke in strokes]
        down += bottom - top + margin
    size = f"{width:.{places}f} {down:.{places}f}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}">\n'
        '<rect class="paper" width="100%" height="100%" fill="white"/>\n'
        f'<g class="ink" fill="none" stroke="black" stroke-width="{_PEN * height:.{places + 1}f}" '
        'stroke-linecap="round" stroke-linejoin="round">\n' + "\n".join(paths) + "\n</g>\n</svg>\n"
    )


def _box(strokes: Strokes) -> tuple[float, float, float, float]:
    points = [point for stroke in strokes for point in stroke]
    if not points:
        raise ValueError("a line has no strokes")
    columns, rows = zip(*points, strict=True)
    return min(columns), min(rows), max(columns), max(rows)


def _path(stroke: Sequence[tuple[float, float]], right: float, down: float, places: int) -> str:
    points = [f"{x + right:.{places}f} {y + down:.{places}f}" for x, y in stroke]
    return f'<path d="M{" L".join(points if len(points) > 1 else points * 2)}"/>'  # a single point is a dot
