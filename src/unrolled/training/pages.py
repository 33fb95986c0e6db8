"""Pages that a run leaves behind, for people to read."""

from collections.abc import Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a Markdown table, an empty one behind it; floats with two digits."""

    def row(cells: Sequence[Any]) -> str:
        said = (f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells)
        return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in said)} |"

    return [row(head), f"|{'---|' * len(head)}", *(row(cells) for cells in rows), ""]
