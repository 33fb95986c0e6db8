"""Preparation of captioned images: encoded captions and checked images in a folder of the cache."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.processing.images import ImageError, read_image
from unrolled.processing.text.base import Tokenizer
from unrolled.training.data.arrays import write_encoded_images
from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.seq2seq import fit_tokenizer
from unrolled.training.data.sources import Source
from unrolled.training.data.splitting import Split
from unrolled.training.data.tokens import write_tokens
from unrolled.wording import tally
from unrolled_tasks.captioning.scores import tokens as clean
from unrolled_tasks.captioning.sources import CaptionedImage

_log = logging.getLogger(__name__)
_VERSION = 3  # increase it when the same options give other tokens
_CODING = ("unit", "min_count", "vocabulary_size", "clean", "max_length", "on_error", "max_pixels")


class Preparation(NamedTuple):
    """Encodes captions and stores images on disk; see `CaptionData` for the options."""

    source: Source[CaptionedImage]
    split: Split  # for splits without their own images
    given: Tokenizer | None  # instead of one fitted on the training captions
    unit: str
    min_count: int
    vocabulary_size: int
    clean: bool
    max_length: int
    on_error: str
    max_pixels: int

    def key(self) -> dict[str, Any]:
        """Returns plain data that differ whenever the captions' tokens or the images do."""
        return {
            "version": _VERSION,
            "source": type(self.source).__name__,
            "images": self.source.fingerprint(),
            "split_fractions": [float(share) for share in self.split.split_fractions],
            "tokenizer": self.given.to_dict() if self.given else None,
            "coding": {name: getattr(self, name) for name in _CODING},
        }

    def encode(self, folder: Path) -> dict[str, Any]:
        """Writes the tokens of the captions and the images of each split; returns what is known about them.

        Raises:
            DataError: an image without a caption or that cannot be read, no training image left, too few symbols.
        """
        skipped = {"images without a caption": 0, "unreadable images": 0, "long captions": 0}
        found = {split: self._checked(split, skipped) for split in self.source.splits}
        divided = self.split.last(len(found["train"]), list(found))
        found |= {split: [found["train"][row] for row in rows.tolist()] for split, rows in divided.items()}
        splits = {
            split: found[split] for split in SPLITS if found.get(split) and (split != "train" or split in divided)
        }
        tokenizer: Tokenizer = self.given or self._trained(splits.get("train", []))
        about: dict[str, Any] = {"splits": [], "counts": {}, "texts": {}, "places": {}}
        for split, images in splits.items():
            if split == "train":
                images = _without_long_captions(images, tokenizer, self.max_length, skipped)
                if not images:
                    raise DataError(f"no training image is left{tally('skipped', skipped)}")
            texts = [text for one in images for text in one.captions]
            write_tokens(folder / f"{split}.captions", tokenizer, texts)
            write_encoded_images(folder / f"{split}.images.arrow", (one.picture for one in images))
            about["splits"].append(split)
            about["counts"][split] = [len(one.captions) for one in images]
            about["texts"][split] = texts
            about["places"][split] = [one.place for one in images]
        return {**about, "skipped": skipped, "tokenizer": tokenizer.to_dict()}

    def _checked(self, split: str, skipped: dict[str, int]) -> list[CaptionedImage]:
        """Returns the readable images of a split that have captions, with cleaned captions if `clean` is set."""
        usable: list[CaptionedImage] = []
        for one in self.source.read(split):
            texts = tuple(filter(None, map(self._clean, one.captions)))
            if not texts:
                if split != "train":
                    raise DataError(f"{one.place}: an image of the {split} split has no caption; remove it")
                skipped["images without a caption"] += 1
                continue
            try:
                read_image(one.picture.source, one.picture.path or one.place, max_pixels=self.max_pixels)
            except ImageError as error:
                if self.on_error == "raise":
                    raise DataError(f"{one.place}: {error}. Fix it, or skip such images: data.on_error=skip") from error
                _log.warning("skipped: %s", error)
                skipped["unreadable images"] += 1
                continue
            usable.append(one._replace(captions=texts))
        return usable

    def _clean(self, text: str) -> str:
        return " ".join(clean(text)) if self.clean else text

    def _trained(self, images: Sequence[CaptionedImage]) -> Tokenizer:
        texts = [text for one in images for text in one.captions]
        unit = "spaced" if self.unit == "word" else self.unit
        try:
            size, least = self.vocabulary_size, self.min_count
            return fit_tokenizer(texts, unit, size=size, min_count=least)
        except ValueError as error:
            raise DataError(f"training captions: {error}") from error


def _without_long_captions(
    images: Sequence[CaptionedImage], tokenizer: Tokenizer, max_length: int, skipped: dict[str, int]
) -> list[CaptionedImage]:
    """Removes captions of more than `max_length` tokens, and images without a remaining caption."""
    usable: list[CaptionedImage] = []
    for one in images:
        short = tuple(text for text in one.captions if len(tokenizer.encode(text)) <= max_length)
        skipped["long captions"] += len(one.captions) - len(short)
        if short:
            usable.append(one._replace(captions=short))
    return usable
