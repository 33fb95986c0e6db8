"""Output files of a run. Each file is replaced atomically."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8.

    Raises:
        OSError: the file cannot be written.
    """
    _write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8", newline=""))


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
    _write_atomically(path, lambda partial: figure.savefig(partial, format="png", dpi=dpi))


def _write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        write(partial)
        partial.replace(path)
    except OSError as error:
        # Python's message names the file if it cannot be opened, but not if the disk is full.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
