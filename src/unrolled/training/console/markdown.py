"""Pages that a run leaves behind."""

from collections.abc import Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, digits: int = 2) -> list[str]:
    """The lines of a table, an empty one behind it; floats with so many digits."""

    def row(cells: Sequence[Any]) -> str:
        said = (f"{cell:.{digits}f}" if isinstance(cell, float) else " ".join(str(cell).split()) for cell in cells)
        return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in said)} |"

    return [row(head), f"|{'---|' * len(head)}", *(row(cells) for cells in rows), ""]
