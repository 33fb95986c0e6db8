"""Opens the file that a network is to read."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.processing.frames import SeriesScaler
from unrolled.processing.labels import LabelSequenceEncoder
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.words import WordTransform


def open_source(bundle: Bundle, path: str) -> Any:
    """Return what a network reads: the content of a text file or of a table of numbers, or the path of another file.

    Args:
        bundle: the network's bundle.
        path: the file.

    Raises:
        OSError: a file that can't be read.
        ValueError: a text that is not UTF-8, a table without the network's channels.
    """
    transform = bundle.processor.source
    if isinstance(transform, Tokenizer | WordTransform | LabelSequenceEncoder):
        try:
            return Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    return _series(path, transform.channels) if isinstance(transform, SeriesScaler) else path


def _series(path: str, channels: list[str]) -> Tensor:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return series_of(file.read(), path, channels, delimiter="\t" if path.endswith(".tsv") else ",")


def series_of(table: str, name: str, channels: Sequence[str], *, delimiter: str = ",") -> Tensor:
    """Return a series (time, channels) in float64 from a table with a heading and a row for each step.

    Args:
        table: the table; other columns than the channels are ignored.
        name: its name in messages.
        channels: the columns.
        delimiter: the character between two cells.

    Raises:
        ValueError: a missing column, or a cell that is no number.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(table, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"{name} is not a valid table: {error}") from None
    missing = [channel for channel in channels if not rows or channel not in rows[0]]
    if missing:
        found = ", ".join(rows[0]) if rows else "no row"
        raise ValueError(f"{name} has no column {missing[0]!r}; expected {', '.join(channels)}, found {found}")
    try:
        return torch.tensor([[float(row[channel]) for channel in channels] for row in rows], dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: the columns {', '.join(channels)} must be numbers ({error})") from None
