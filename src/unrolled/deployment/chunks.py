"""Splitting of long texts at the ends of sentences, clauses or words."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

# The possible ends of a piece, in order of preference: sentence, clause, word. White space belongs to the piece before.
_ENDS = (
    re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+\s+|[。！？]+[”’」』]*\s*|\n+"),
    re.compile(r"[,;:–—][\"'”’»)\]]*+\s+|[，、；：]\s*"),
    re.compile(r"\s+"),
)


class Piece(NamedTuple):
    """A piece of a text.

    Attributes:
        ids: token ids of the piece.
        blank: whether white space follows in the text.
    """

    ids: list[int]
    blank: bool


def pieces(text: str, encode: Callable[[str], list[int]], most: int) -> list[Piece]:
    """Split a text into pieces of at most `most` tokens. White space between pieces is removed.

    Args:
        text: a text of any length.
        encode: a function that returns the token ids of a text.
        most: maximum number of tokens of a piece; a single character may have more.
    """
    parts = _split(text, encode, most, _ENDS)
    if len(parts) == 1:
        return [Piece(encode(text), False)]
    return [Piece(encode(part.strip()), part != part.rstrip()) for part in parts]


def _split(text: str, encode: Callable[[str], list[int]], most: int, ends: Sequence[re.Pattern[str]]) -> list[str]:
    if len(text) <= 1 or len(encode(text)) <= most:
        return [text]
    if not ends:
        middle = len(text) // 2
        return _split(text[:middle], encode, most, ()) + _split(text[middle:], encode, most, ())
    borders = [0, *(end.end() for end in ends[0].finditer(text)), len(text)]
    found: list[str] = []
    held, used = "", 0  # adjacent parts that fit into one piece
    for begin, end in pairwise(borders):
        part = text[begin:end]
        size = len(encode(part))
        if held and used + size > most:
            found.append(held)
            held, used = "", 0
        if size > most:
            found += _split(part, encode, most, ends[1:])
        else:
            held, used = held + part, used + size
    return [*found, held] if held else found
