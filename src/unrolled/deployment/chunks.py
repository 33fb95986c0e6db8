"""Long texts in pieces that a network can read: cut where a sentence ends, or else where it hurts least."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

# What a piece may end with, the best first: a sentence, a clause, a word. A blank belongs to the piece before it.
_ENDS = (
    re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+\s+|[。！？]+[”’」』]*\s*|\n+"),
    re.compile(r"[,;:–—][\"'”’»)\]]*+\s+|[，、；：]\s*"),
    re.compile(r"\s+"),
)


class Piece(NamedTuple):
    """A stretch of a text.

    Attributes:
        ids: its tokens.
        blank: whether a blank follows in the text.
    """

    ids: list[int]
    blank: bool


def pieces(text: str, encode: Callable[[str], list[int]], most: int) -> list[Piece]:
    """A text as one piece, or as several of at most so many tokens, whose texts make it up but for blanks at cuts.

    Args:
        text: of any length.
        encode: turns text into tokens.
        most: tokens of a piece; a single character may have more.
    """
    parts = _cut(text, encode, most, _ENDS)
    if len(parts) == 1:
        return [Piece(encode(text), False)]
    return [Piece(encode(part.strip()), part != part.rstrip()) for part in parts]


def _cut(text: str, encode: Callable[[str], list[int]], most: int, ends: Sequence[re.Pattern[str]]) -> list[str]:
    if len(text) <= 1 or len(encode(text)) <= most:
        return [text]
    if not ends:
        middle = len(text) // 2
        return _cut(text[:middle], encode, most, ()) + _cut(text[middle:], encode, most, ())
    borders = [0, *(end.end() for end in ends[0].finditer(text)), len(text)]
    found: list[str] = []
    held, used = "", 0  # neighbours that fit into one piece together
    for begin, end in pairwise(borders):
        part = text[begin:end]
        size = len(encode(part))
        if held and used + size > most:
            found.append(held)
            held, used = "", 0
        if size > most:
            found += _cut(part, encode, most, ends[1:])
        else:
            held, used = held + part, used + size
    return [*found, held] if held else found
