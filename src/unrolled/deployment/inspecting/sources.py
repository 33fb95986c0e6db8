"""Opens the file that a network is to read."""

import csv
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
    """Read a table with a heading and a row for each step; other columns than the channels are ignored."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t" if path.endswith(".tsv") else ","))
    missing = [name for name in channels if not rows or name not in rows[0]]
    if missing:
        found = ", ".join(rows[0]) if rows else "no row"
        raise ValueError(f"{path} has no column {missing[0]!r}; expected {', '.join(channels)}, found {found}")
    try:
        return torch.tensor([[float(row[name]) for name in channels] for row in rows], dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: the columns {', '.join(channels)} must be numbers ({error})") from None
