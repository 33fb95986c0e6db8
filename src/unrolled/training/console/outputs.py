"""Output files of a run. Each file is replaced atomically."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from unrolled import durable


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8.

    Raises:
        OSError: the file cannot be written.
    """
    durable.replace(path, lambda partial: partial.write_text(text, encoding="utf-8", newline=""))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file.

    Raises:
        OSError: the file cannot be written.
    """
    durable.replace(path, lambda partial: partial.write_bytes(content))


def write_rows(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV file.

    Raises:
        OSError: the file cannot be written.
    """
    table = io.StringIO(newline="")
    csv.writer(table).writerows(rows)
    write_text(path, table.getvalue())


def save_figure(path: Path, figure: Figure, dpi: int) -> None:
    """Saves a figure as PNG.

    Raises:
        OSError: the file cannot be written.
    """
    durable.replace(path, lambda partial: figure.savefig(partial, format="png", dpi=dpi))
