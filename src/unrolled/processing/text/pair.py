"""A pair of codecs, for sources and targets."""

from collections.abc import Iterable, Iterator
from typing import Any

from unrolled.processing.text.base import Codec
from unrolled.wording import article


class PairCodec(Codec):
    """Encodes with the source's codec and decodes with the target's.

    Args:
        source: codec of sources.
        target: codec of targets, whose unit, size, start and unknown the pair has.
        lowercase: whether sources are converted to lower case.

    Raises:
        ValueError: a source or target that isn't a codec.
    """

    def __init__(self, source: Codec, target: Codec, lowercase: bool = False) -> None:
        for name, side in (("source", source), ("target", target)):
            if not isinstance(side, Codec):  # pyright: ignore[reportUnnecessaryIsInstance]  # it may be read from a file
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
