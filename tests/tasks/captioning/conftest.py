"""Pictures that a small network can tell apart."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

Image = pytest.importorskip("PIL.Image")

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "black": (10, 10, 10)}
PLACES = {"left": (0, 0, 6, 12), "right": (6, 0, 12, 12), "top": (0, 0, 12, 6), "bottom": (0, 6, 12, 12)}


def drawn(color: str, place: str) -> Any:
    image = Image.new("RGB", (12, 12), "white")
    image.paste(COLOURS[color], PLACES[place])
    return image


def content(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


ROWS = [(color, place) for color in COLOURS for place in PLACES]


@pytest.fixture
def pictures(folder: Path) -> Path:
    """A folder with image files and a table that names them, two captions each."""
    (folder / "shapes").mkdir()
    rows: list[dict[str, Any]] = []
    for color, place in ROWS:
        name = f"{color}_{place}.png"
        drawn(color, place).save(folder / "shapes" / name)
        captions = [f"A {color} half on the {place}.", f"The {place} half is {color}!"]
        rows.append({"file_name": name, "captions": captions})
    (folder / "shapes" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder
