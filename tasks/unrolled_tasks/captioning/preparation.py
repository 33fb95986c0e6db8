"""Captions encoded and images read once, before training, into a folder of the cache."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.processing.images import ImageError, read_image
from unrolled.processing.text.base import Codec
from unrolled.processing.text.captions import CaptionCodec
from unrolled.training.data.arrays import write_pictures
from unrolled.training.data.base import DataError
from unrolled.training.data.texts import cut_parts, left_out, trained_codec
from unrolled.training.data.tokens import write_tokens
from unrolled_tasks.captioning.scores import tokens as cleaned
from unrolled_tasks.captioning.sources import Captioned, Source

_log = logging.getLogger(__name__)
_VERSION = 3  # raise it when the same options lead to other tokens
_CODING = ("unit", "min_count", "vocabulary_size", "cleaned", "max_length", "broken", "max_pixels")


class Preparation(NamedTuple):
    """From a source of captioned images to tokens and images on the disk; `CaptionData` says what the options are."""

    source: Source
    cut: Sequence[float]  # for parts without images of their own
    given: CaptionCodec | None  # instead of one made from the training captions
    unit: str
    min_count: int
    vocabulary_size: int
    cleaned: bool
    max_length: int
    broken: str
    max_pixels: int

    def key(self) -> str:
        """Differs whenever the captions' tokens or the images do."""
        about = {
            "version": _VERSION,
            "source": type(self.source).__name__,
            "images": self.source.fingerprint(),
            "cut": self.cut,
            "codec": self.given.target.to_dict() if self.given else None,
            "coding": {name: getattr(self, name) for name in _CODING},
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]

    def encode(self, folder: Path) -> None:
        """Writes about.json, and for each part its captions as tokens and its images.

        Raises:
            DataError: an image without a caption or that cannot be read, no training image left, too few symbols.
        """
        dropped = {"images without a caption": 0, "unreadable images": 0, "long captions": 0}
        parts = cut_parts({part: self._checked(part, dropped) for part in self.source.parts}, self.cut)
        codec: Codec = self.given.target if self.given else self._trained(parts.get("train", []))
        about: dict[str, Any] = {"parts": [], "counts": {}, "texts": {}, "places": {}}
        for part, images in parts.items():
            if part == "train":
                images = _shortened(images, codec, self.max_length, dropped)
                if not images:
                    raise DataError(f"no training image is left{left_out(dropped)}")
            texts = [text for one in images for text in one.captions]
            write_tokens(folder / f"{part}.captions", codec, texts)
            write_pictures(folder / f"{part}.images.arrow", (one.picture for one in images))
            about["parts"].append(part)
            about["counts"][part] = [len(one.captions) for one in images]
            about["texts"][part] = texts
            about["places"][part] = [one.place for one in images]
        about |= {"dropped": dropped, "codec": codec.to_dict()}
        (folder / "about.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")

    def _checked(self, part: str, dropped: dict[str, int]) -> list[Captioned]:
        """The readable images of a part that have captions, cleaned."""
        kept: list[Captioned] = []
        for one in self.source.images(part):
            texts = tuple(filter(None, map(self._clean, one.captions)))
            if not texts:
                if part != "train":
                    raise DataError(f"{one.place}: an image of the {part} part without a caption; take it out")
                dropped["images without a caption"] += 1
                continue
            try:
                read_image(one.picture.source, one.picture.path or one.place, max_pixels=self.max_pixels)
            except ImageError as error:
                if self.broken == "error":
                    raise DataError(f"{one.place}: {error}. Mend it, or leave such out: data.broken=skip") from error
                _log.warning("left out: %s", error)
                dropped["unreadable images"] += 1
                continue
            kept.append(one._replace(captions=texts))
        return kept

    def _clean(self, text: str) -> str:
        return " ".join(cleaned(text)) if self.cleaned else text

    def _trained(self, images: Sequence[Captioned]) -> Codec:
        texts = [text for one in images for text in one.captions]
        unit = "spaced" if self.unit == "word" else self.unit
        try:
            size, least = self.vocabulary_size, self.min_count
            return trained_codec(texts, unit, size=size, min_count=least)
        except ValueError as error:
            raise DataError(f"training captions: {error}") from error


def _shortened(images: Sequence[Captioned], codec: Codec, max_length: int, dropped: dict[str, int]) -> list[Captioned]:
    """Images with those of their captions that are short enough, and none without any."""
    kept: list[Captioned] = []
    for one in images:
        short = tuple(text for text in one.captions if len(codec.encode(text)) <= max_length)
        dropped["long captions"] += len(one.captions) - len(short)
        if short:
            kept.append(one._replace(captions=short))
    return kept
