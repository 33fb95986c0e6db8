"""The codec of captions, together with the image transform."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from unrolled.processing.text.base import Codec
from unrolled.wording import article


class CaptionCodec(Codec):
    """Encodes and decodes captions with a text codec, and stores the image transform as plain data.

    Args:
        image: options of the transform, for `unrolled.ImageTransform.from_dict`.
        target: codec of the captions, whose unit, size, start and unknown this codec has.

    Raises:
        ValueError: a target that isn't a codec, or an image that isn't a dict.
    """

    def __init__(self, image: Mapping[str, Any], target: Codec) -> None:
        # The types are checked since both may be read from a file.
        if not isinstance(target, Codec):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"target is {article(type(target).__name__)}, expected a codec")
        if not isinstance(image, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"image is {article(type(image).__name__)}, expected the options of an image transform")
        self.image, self.target = dict(image), target
        self.unit, self.size, self.start, self.unknown = target.unit, target.size, target.start, target.unknown

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        return self.target.encode_pieces(pieces)

    def decode(self, ids: Iterable[int]) -> str:
        return self.target.decode(ids)

    def symbols(self, ids: Iterable[int]) -> list[str]:
        return self.target.symbols(ids)

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": "unrolled.CaptionCodec", "image": dict(self.image), "target": self.target.to_dict()}
