"""Pieces from MIDI files, scores, tables of frames, data sets, published JSON, or a package."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.processing.notes.midi import MIDI, read_midi
from unrolled.processing.notes.roll import Frames
from unrolled.processing.notes.scores import SCORES, read_score
from unrolled.training.data.base import DataError
from unrolled.training.data.files import find_files, read_text, suffix_of
from unrolled.training.data.options import SourceOptions
from unrolled.training.data.rows import Row, split_rows
from unrolled.training.data.splitting import Split
from unrolled.training.data.tables import TABLES, parse_json

_NAMES = {"train": "train", "valid": "validation", "validation": "validation", "test": "test"}


class Piece(NamedTuple):
    """A piece and where it comes from."""

    frames: Frames
    place: str


def read_pieces(
    origin: SourceOptions, split: Split, column: str, steps_per_beat: int, default: Sequence[Row] | None
) -> dict[str, list[Piece]]:
    """Returns the pieces of each split.

    Args:
        origin: files or a data set.
        split: how missing splits are divided off the training pieces: the last ones.
        column: column of a table with the frames.
        steps_per_beat: number of frames of a quarter note, for MIDI files and scores.
        default: pieces instead of files or a data set.

    Raises:
        DataError: files that don't exist or can't be read, a table without the column.
    """
    found = None if default is not None else _published(origin)
    if found is None:
        readers: dict[str, Callable[[Path], Iterator[Row]]] = {
            **{kind: partial(_file_row, read=read_midi, steps_per_beat=steps_per_beat) for kind in MIDI},
            **{kind: partial(_file_row, read=read_score, steps_per_beat=steps_per_beat) for kind in SCORES},
        }
        found = split_rows(origin, split, default, readers=readers)
    read = partial(_piece, column=column)
    return {name: [read(row) for row in rows] for name, rows in found.items()}


def _file_row(path: Path, read: Callable[[Path, int], list[list[int]]], steps_per_beat: int) -> Iterator[Row]:
    try:
        yield Row({"frames": read(path, steps_per_beat)}, str(path), path)
    except ValueError as error:
        raise DataError(str(error)) from None


def _piece(row: Row, column: str) -> Piece:
    name = column if row.file is None or suffix_of(row.file) in TABLES else "frames"
    return Piece(row.column(name, "data.column"), row.place)


def _published(origin: SourceOptions) -> dict[str, list[Row]] | None:
    """Returns the splits of a JSON file that contains them, {"train": [piece, …], "valid": …, "test": …}, if it is one.

    Boulanger-Lewandowski's sets are published in this form. A rest is −1 in some of them.
    """
    if origin.files is None or len(origin.patterns) > 1:
        return None
    paths = find_files(origin.files, "files", suffixes=(*TABLES, *MIDI, *SCORES))
    if len(paths) != 1 or suffix_of(paths[0]) != ".json":
        return None
    text = "".join(read_text(paths[0]))
    if not text.lstrip().startswith("{") or '"train"' not in text[:4096]:
        return None  # JSON lines
    content = parse_json(text, str(paths[0]))
    if not isinstance(content, Mapping) or not set(content) <= set(_NAMES):
        raise DataError(f"{paths[0]}: expected an object with pieces for train, valid and test")
    return {_NAMES[name]: list(_published_rows(paths[0], name, pieces)) for name, pieces in content.items()}


def _published_rows(path: Path, name: str, pieces: Any) -> Iterator[Row]:
    if not isinstance(pieces, list):
        raise DataError(f"{path}, {name}: expected a list of pieces")
    for number, piece in enumerate(pieces, start=1):
        place = f"{path}, {name} piece {number}"
        if not isinstance(piece, list) or not all(isinstance(frame, list) for frame in piece):
            raise DataError(f"{place}: expected a list of frames, each a list of MIDI pitches")
        yield Row({"frames": [[pitch for pitch in frame if pitch != -1] for frame in piece]}, place)
