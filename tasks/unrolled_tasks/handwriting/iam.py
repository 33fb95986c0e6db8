"""Lines of the IAM On-Line Handwriting Database: strokes in XML, texts in a folder beside them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from unrolled.training.data.base import DataError
from unrolled.training.data.files import read_text
from unrolled.training.data.rows import Row

_LINE = re.compile(r"(?P<form>.+)-(?P<line>\d+)")
_LARGEST = 1 << 26  # bytes of a file; those of the database are some 50 KB


def iam_rows(path: Path, *, texts: bool) -> Iterator[Row]:
    """Yields the line of a file such as lineStrokes/a01/a01-000/a01-000u-01.xml.

    Its text is the first line after CSR: of ascii/a01/a01-000/a01-000u.txt, in the folder that has lineStrokes.

    Args:
        path: the file.
        texts: whether the text is read.

    Raises:
        DataError: XML that is broken or without strokes, or no text of the line.
    """
    row = {"strokes": _strokes(path)}
    yield Row({**row, "text": _text(path)} if texts else row, f"{path}", path)


def _strokes(path: Path) -> list[list[tuple[float, float]]]:
    found: list[list[tuple[float, float]]] = []
    parser = expat.ParserCreate()

    def begin(name: str, attributes: dict[str, str]) -> None:
        if name == "Stroke":
            found.append([])
        elif name == "Point":
            try:
                found[-1].append((float(attributes["x"]), float(attributes["y"])))
            except (IndexError, KeyError, ValueError):
                shown = " ".join(f'{key}="{value:.20}"' for key, value in attributes.items())
                raise DataError(
                    f"{path}, line {parser.CurrentLineNumber}: <Point {shown}> is no point of a stroke; expected "
                    'numbers x="…" y="…" within <Stroke>'
                ) from None

    def refuse(*_: Any) -> None:
        raise DataError(f"{path}, line {parser.CurrentLineNumber} declares an entity; files of strokes need none")

    parser.StartElementHandler, parser.EntityDeclHandler = begin, refuse
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(
                f"{path} has {path.stat().st_size:,} bytes, more than the {_LARGEST:,} of a line of strokes"
            )
        parser.Parse(path.read_bytes(), True)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except (expat.ExpatError, ValueError) as error:  # ValueError: an unknown encoding
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}, line {parser.CurrentLineNumber} is not valid XML: {error}") from None
    return found


def _text(path: Path) -> str:
    named = _LINE.fullmatch(path.stem)
    folders = [number for number, part in enumerate(path.parts) if part == "lineStrokes"]
    if named is None or not folders:
        raise DataError(
            f"{path}: the text of a line is found for lineStrokes/…/FORM-NUMBER.xml in ascii/…/FORM.txt; give "
            "tables with text and strokes, or data.mode=prediction, which needs no text"
        )
    parts = list(path.parts)
    parts[folders[-1]] = "ascii"
    source = Path(*parts).with_name(f"{named['form']}.txt")
    _, _, recognized = "".join(read_text(source)).partition("CSR:")
    lines = [line.strip() for line in recognized.splitlines() if line.strip()]
    number = int(named["line"])
    if not 1 <= number <= len(lines):
        raise DataError(f"{path}: {source} has {len(lines)} lines after CSR:, and this is line {number}")
    return lines[number - 1]
