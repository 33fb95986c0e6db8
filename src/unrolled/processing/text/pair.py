"""Two codecs as one: what is read, and what is written."""

from collections.abc import Iterable, Iterator
from typing import Any

from unrolled.processing.text.base import Codec
from unrolled.wording import article


class PairCodec(Codec):
    """Reads with one codec and writes with another: `encode` is the source's, `decode` and the rest are the target's.

    Args:
        source: codec of what is read.
        target: codec of what is written; its unit, size, start and unknown are the pair's.
        lowercase: sources are read in lower case.

    Raises:
        ValueError: a side that is no codec.
    """

    def __init__(self, source: Codec, target: Codec, lowercase: bool = False) -> None:
        for name, side in (("source", source), ("target", target)):
            if not isinstance(side, Codec):  # pyright: ignore[reportUnnecessaryIsInstance]  # it may come from a file
                raise ValueError(f"{name} is {article(type(side).__name__)}, expected a codec")
        self.source, self.target, self.lowercase = source, target, lowercase
        self.unit, self.size, self.start, self.unknown = target.unit, target.size, target.start, target.unknown

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        return self.source.encode_pieces((piece.lower() for piece in pieces) if self.lowercase else pieces)

    def decode(self, ids: Iterable[int]) -> str:
        return self.target.decode(ids)

    def symbols(self, ids: Iterable[int]) -> list[str]:
        return self.target.symbols(ids)

    def to_dict(self) -> dict[str, Any]:
        return {
            "_target_": "unrolled.PairCodec",
            "source": self.source.to_dict(),
            "target": self.target.to_dict(),
            "lowercase": self.lowercase,
        }
