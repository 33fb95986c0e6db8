"""Markdown tables."""

from collections.abc import Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, digits: int = 2) -> list[str]:
    """Returns the lines of a table and an empty line after it.

    Args:
        head: names of the columns.
        rows: cells of each row.
        digits: decimal places of floats.
    """

    def row(cells: Sequence[Any]) -> str:
        texts = (f"{cell:.{digits}f}" if isinstance(cell, float) else " ".join(str(cell).split()) for cell in cells)
        return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"

    return [row(head), f"|{'---|' * len(head)}", *(row(cells) for cells in rows), ""]
