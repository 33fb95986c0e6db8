"""Bach's four-part chorales from the package music21, whose corpus contains them as MusicXML.

Only these files are read; none of the package's code is imported or run.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

from unrolled.processing.notes.roll import frames_of_file
from unrolled.processing.notes.scores import read_parts
from unrolled.training.data.base import DataError
from unrolled.training.data.cache import cached
from unrolled.training.data.rows import Row

_VERSION = 1  # part of the cache key: increase it when the same files give other frames
_VOICES = 4


def chorale_rows(count: int, steps_per_beat: int, cache: Path) -> list[Row]:
    """Returns chorales in an order that has nothing to do with their numbers, each music once, in any key.

    Args:
        count: number of chorales; fewer if there are not as many.
        steps_per_beat: number of frames of a quarter note.
        cache: folder of prepared data.

    Raises:
        DataError: music21 is not installed, or contains no chorales.
    """
    paths = _files()
    key = {"version": _VERSION, "music21": importlib.metadata.version("music21")}
    key |= {"count": count, "steps_per_beat": steps_per_beat}

    def make(folder: Path) -> dict[str, int]:
        found = [{"name": name, "frames": frames} for name, frames in _chorales(paths, count, steps_per_beat)]
        (folder / "chorales.json").write_text(json.dumps(found))
        return {"chorales": len(found)}

    folder, _ = cached(cache, "chorales", key, make)
    pieces = json.loads((folder / "chorales.json").read_text())
    return [Row({"frames": piece["frames"]}, f"chorale {piece['name']}") for piece in pieces]


def _files() -> list[Path]:
    # find_spec does not import a top-level package.
    found = importlib.util.find_spec("music21")
    folders = list(found.submodule_search_locations or []) if found else []
    paths = [path for folder in folders for path in Path(folder).glob("corpus/bach/*.mxl")]
    if not paths:
        state = "is not installed" if found is None else "contains no corpus/bach/*.mxl"
        raise DataError(f"the chorales come from the package music21, which {state}; pip install 'unrolled[music]'")
    return sorted(paths, key=lambda path: hashlib.sha256(path.stem.encode()).digest())


def _chorales(paths: list[Path], count: int, steps_per_beat: int) -> Iterator[tuple[str, list[list[int]]]]:
    seen: set[str] = set()
    for path in paths:
        if len(seen) == count:
            return
        parts = read_parts(path)
        if len(parts) != _VOICES:
            continue
        frames = frames_of_file([note for part in parts for note in part], path, steps_per_beat)
        lowest = min(pitch for frame in frames for pitch in frame)
        music = repr([[pitch - lowest for pitch in frame] for frame in frames])
        if music not in seen:
            seen.add(music)
            yield path.stem, frames
