"""What every codec can do: text to ids and back, plain data out."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

UNKNOWN = 1
"""The id for what an alphabet lacks, in every codec that has one; 0 is <start>."""


class Codec(ABC):
    """A fixed alphabet: text to ids and back.

    Attributes:
        unit: what one id stands for: "character", "byte", "word" or "subword".
        size: number of ids; every id lies in 0 … size − 1.
        start: id that a model reads before the first symbol; written, it ends a text. It decodes to nothing.
        unknown: id that stands for whatever the alphabet lacks, or None where nothing can be lacking.
    """

    unit: str
    size: int
    start: int
    unknown: int | None

    @abstractmethod
    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        """Ids of a text that comes in pieces, cut anywhere: together they are `encode` of the joined text."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of these ids.

        Raises:
            ValueError: an id outside 0 … size − 1.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `codec_from_dict` builds this codec again."""

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """How each id is written, for tables and pictures."""
        return [self.decode([index]) for index in ids]

    def encode(self, text: str) -> list[int]:
        """Ids of this text, without `start`."""
        return [index for ids in self.encode_pieces([text]) for index in ids]

    def _checked(self, ids: Iterable[int]) -> Iterator[int]:
        for index in map(int, ids):
            if not 0 <= index < self.size:
                raise ValueError(
                    f"id {index} is outside this codec's 0 … {self.size - 1}: was the text encoded by another codec?"
                )
            yield index


def numbered(name: str, symbols: Sequence[str]) -> dict[str, int]:
    """Ids from 2 on: 0 and 1 are <start> and <unknown>.

    Raises:
        ValueError: no symbol, or one given twice.
    """
    if not symbols:
        raise ValueError(f"a codec needs at least one of its {name}, got none")
    ids = {symbol: index for index, symbol in enumerate(symbols, start=2)}
    if len(ids) != len(symbols):
        twice = next(symbol for symbol, count in Counter(symbols).items() if count > 1)
        raise ValueError(f"each of a codec's {name} is given once, got {twice!r} twice")
    return ids
