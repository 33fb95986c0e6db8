"""Base class of codecs, which convert text to ids and back."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

UNKNOWN = 1
"""The id of unknown symbols, in every codec that has one; 0 is <start>."""


class Codec(ABC):
    """Base class of codecs, which convert text to ids of a fixed vocabulary and back.

    Attributes:
        unit: what an id represents: "character", "byte", "word" or "subword".
        size: number of ids, which are 0 … size − 1.
        start: id of the symbol that starts and ends a text; it decodes to an empty string.
        unknown: id of symbols outside the vocabulary; None if there can be none.
    """

    unit: str
    size: int
    start: int
    unknown: int | None

    @abstractmethod
    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        """Yield the ids of a text that is given in pieces, split anywhere; together they equal `encode` of the text."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of some ids.

        Raises:
            ValueError: an id outside 0 … size − 1.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `codec_from_dict` creates this codec."""

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return a text for each id, for tables and plots."""
        return [self.decode([index]) for index in ids]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without `start`."""
        return [index for ids in self.encode_pieces([text]) for index in ids]

    def _checked(self, ids: Iterable[int]) -> Iterator[int]:
        for index in map(int, ids):
            if not 0 <= index < self.size:
                raise ValueError(
                    f"id {index} is outside this codec's 0 … {self.size - 1}: was the text encoded by another codec?"
                )
            yield index


def numbered(name: str, symbols: Sequence[str]) -> dict[str, int]:
    """Assign ids from 2 on to symbols; 0 and 1 are <start> and <unknown>.

    Raises:
        ValueError: no symbols, or duplicates.
    """
    if not symbols:
        raise ValueError(f"a codec needs at least one of its {name}, got none")
    ids = {symbol: index for index, symbol in enumerate(symbols, start=2)}
    if len(ids) != len(symbols):
        twice = next(symbol for symbol, count in Counter(symbols).items() if count > 1)
        raise ValueError(f"a codec's {name} must be unique, got {twice!r} twice")
    return ids
