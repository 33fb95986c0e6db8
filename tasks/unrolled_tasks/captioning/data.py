"""Captioned images: captions are encoded once, images are read when needed or replaced by cached features."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.checkpoint import build_processor
from unrolled.descriptions import TRUSTED, build
from unrolled.durable import digest_in_folder
from unrolled.models.images.encoder import ImageEncoder
from unrolled.processing.images import MAX_PIXELS, ImageTransform, read_image
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.transform import Processor
from unrolled.training.configuration.flat import flat_options
from unrolled.training.console.terminal import quoted_path
from unrolled.training.data.arrays import Arrays, EncodedImages
from unrolled.training.data.base import DataError
from unrolled.training.data.bucketed import BucketData, Examples
from unrolled.training.data.buckets import BatchSpec, Ints
from unrolled.training.data.cache import cache_folder, cached
from unrolled.training.data.options import Batching, SourceOptions
from unrolled.training.data.rows import rows_of
from unrolled.training.data.seq2seq import documents, teacher_forcing_batch
from unrolled.training.data.sources import Source
from unrolled.training.data.splitting import Split
from unrolled.training.data.tokens import Tokens
from unrolled.wording import article, counted, tally
from unrolled_tasks.captioning.features import cached_features
from unrolled_tasks.captioning.preparation import Preparation
from unrolled_tasks.captioning.sources import CaptionedImage, ImageRows, KarpathySource

_ORIGIN, _SPLIT, _BATCHING = SourceOptions(), Split(), Batching(batch_tokens=1024)
_UNITS = ("word", "subword", "character")


class CaptionBatch(NamedTuple):
    """Images and captions: single captions in training, all captions of an image for scoring."""

    images: Tensor  # (sources, channels, height, width), or (sources, region, features) of a trunk
    rows: Tensor  # (batch,) the index of each caption's image
    inputs: Tensor  # (batch, time) int64: the start symbol, then the caption
    targets: Tensor  # (batch, time) int64: the caption, then the stop symbol
    lengths: Tensor  # (batch,) tokens of the caption and its stop symbol
    examples: Tensor  # (sources,) numbers of the images within their split
    scale: float  # turns the summed loss into this batch's share of the step's mean
    references: tuple[tuple[str, ...], ...] = ()  # all captions of each image, as encoded
    places: tuple[str, ...] = ()  # path or row of each image


class _Prepared(NamedTuple):
    tokens: Tokens  # a document for each caption
    owners: Ints  # (captions,) the index of each caption's image
    first: Ints  # (images + 1,) index of each image's first caption
    pictures: EncodedImages
    captions: list[str]
    places: list[str]


class CaptionData(BucketData[CaptionBatch]):
    """Images with captions.

    Give exactly one of `glyphs`, `files`, `karpathy` and `dataset`. The tokenizer is fitted on the training
    captions alone.
    Every image is read once during preparation, so that unreadable images are reported before training. Training
    captions longer than `max_length` tokens and training images without a caption are dropped and counted.

    Args:
        glyphs: number of training images for each character of matplotlib's fonts.
        origin: tables (.parquet, .jsonl, .csv, .tsv; paths, folders, patterns) whose rows contain or name an image, or
            a data set.
        karpathy: a file such as dataset_coco.json, with the images in `images`.
        image: column of the image; None for one of the usual names.
        captions: pattern of the names of caption columns.
        images: folder of named image files; None for the folder of their table.
        on_error: "raise" an error for an unreadable image, or "skip" and count it.
        max_pixels: maximum number of pixels; a larger image is unreadable and not decoded.
        transform: options of `unrolled.ImageTransform`.
        features: "cached" to compute the trunk's features of every image once, before training; "live" to compute them
            in every step.
        horizontal_flip: add a mirrored copy of each training image to every epoch.
        unit: the unit of a token: "word", "subword" or "character".
        min_count: words with a smaller count are unknown.
        vocabulary_size: maximum number of words or subwords.
        clean: convert captions to lower case and remove punctuation.
        max_length: maximum number of tokens of a training caption.
        batching: batches of captions of similar length.
        split: fractions for splits without their own images; the last images are for the test.
        processor_from: the processor of a trained network, as its `to_dict` wrote it, instead of one for these data.
        cache: folder for prepared data; None for $UNROLLED_CACHE or ~/.cache/unrolled.

    Raises:
        DataError: no source or several, or invalid options.
    """

    @flat_options
    def __init__(
        self,
        *,
        glyphs: int | None = None,
        origin: SourceOptions = _ORIGIN,
        karpathy: str | None = None,
        image: str | None = None,
        captions: str = "caption*",
        images: str | None = None,
        on_error: str = "raise",
        max_pixels: int = MAX_PIXELS,
        transform: Annotated[Mapping[str, Any], ImageTransform] | None = None,
        features: str = "live",
        horizontal_flip: bool = False,
        unit: str = "word",
        min_count: int = 5,
        vocabulary_size: int = 10000,
        clean: bool = True,
        batching: Batching = _BATCHING,
        max_length: int = 40,
        split: Split = _SPLIT,
        processor_from: Mapping[str, Any] | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        origin.check_exactly_one("images", glyphs=glyphs, karpathy=karpathy)
        if unit not in _UNITS or on_error not in ("raise", "skip") or features not in ("live", "cached"):
            raise DataError(
                f"unit={unit!r} is one of {', '.join(_UNITS)}; on_error={on_error!r} is raise or skip; "
                f"features={features!r} is live or cached"
            )
        if min(max_length, vocabulary_size, min_count, max_pixels) < 1 or (glyphs is not None and glyphs < 1):
            raise DataError(
                f"max_length={max_length}, vocabulary_size={vocabulary_size}, "
                f"min_count={min_count}, max_pixels={max_pixels} and glyphs={glyphs} must be 1 or more"
            )
        if karpathy is not None and images is None:
            raise DataError("karpathy names image files: give their folder with data.images")
        described = None if processor_from is None else _caption_processor(processor_from)
        try:
            options = {"_target_": "unrolled.ImageTransform", **(transform or {})}
            self._transform: ImageTransform = described[0] if described else build(options)
        except ValueError as error:
            raise DataError(f"transform: {error}") from error
        if glyphs is not None:
            from unrolled_tasks.captioning.glyphs import GlyphSource

            self._source: Source[CaptionedImage] = GlyphSource(
                glyphs, self._transform.size, split.split_fractions, batching.seed
            )
            split = Split(split_fractions=(1.0, 0.0, 0.0))  # GlyphSource assigns characters to splits itself
        elif karpathy is not None:
            self._source = KarpathySource(karpathy, images or "")
        else:
            self._source = ImageRows(rows_of(origin), image, captions, images)
        self._preparation = Preparation(
            source=self._source,
            split=split,
            given=None if described is None else described[1],
            unit=unit,
            min_count=min_count,
            vocabulary_size=vocabulary_size,
            clean=clean,
            max_length=max_length,
            on_error=on_error,
            max_pixels=max_pixels,
        )
        self._max_pixels = max_pixels
        self.features, self.horizontal_flip = features, horizontal_flip
        self.batching = batching
        self._cache = cache_folder(cache)
        self._tokenizer: Tokenizer | None = None
        self._splits: dict[str, _Prepared] = {}
        self._features: dict[str, list[Arrays]] = {}  # features of a split's images, and of the mirrored ones
        self._skipped: dict[str, int] = {}

    def prepare(self) -> None:
        """See `SequenceData.prepare`."""
        if self._tokenizer is not None:
            return
        folder, about = cached(self._cache, "captions", self._preparation.key(), self._preparation.encode)
        for split in about["splits"]:
            counts = np.asarray(about["counts"][split], dtype=np.int64)
            self._splits[split] = _Prepared(
                Tokens(folder / f"{split}.captions"),
                np.repeat(np.arange(len(counts)), counts),
                np.concatenate([[0], counts.cumsum()]),
                EncodedImages(folder / f"{split}.images.arrow"),
                about["texts"][split],
                about["places"][split],
            )
        self._skipped = about["skipped"]
        # The tokenizer comes from the cache, the transform from this run's options.
        self._tokenizer = build(about["tokenizer"], trusted=TRUSTED)

    def setup(self, stage: str) -> None:
        """Prepares the data and, with `features="cached"`, computes the trunk's features of all images."""
        super().setup(stage)
        if self.features == "cached" and not self._features:
            self._compute_features()

    def sizes(self) -> dict[str, int]:
        return {"vocabulary": self.tokenizer.size}

    def processor(self) -> Processor:
        return Processor(self._transform, self.tokenizer)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the captions. Call `prepare` first."""
        if self._tokenizer is None:
            raise RuntimeError("the captions are not encoded yet: call prepare() first")
        return self._tokenizer

    def splits(self) -> Sequence[str]:
        """See `SequenceData.splits`."""
        return tuple(self._splits)

    def describe(self) -> str:
        """See `SequenceData.describe`."""
        counts = ", ".join(
            f"{split} {counted(len(of.pictures), 'image')} with {counted(len(of.owners), 'caption')}"
            for split, of in self._splits.items()
        )
        return (
            f"{self._source}: {counts}; a vocabulary of {self.tokenizer.size:,} {self.tokenizer.unit}s"
            + ("; training images with horizontal flips" if self.horizontal_flip else "")
            + tally("skipped", self._skipped)
            + f"; scored: {self.evaluated_split}"
        )

    def fingerprint(self) -> str:
        """See `SequenceData.fingerprint`."""
        if "train" not in self._splits:
            return ""
        tokens = self._splits["train"].tokens
        return tokens.digest() + digest_in_folder(tokens.path.with_name("train.images.arrow"))

    def examples(self, split: str, *, scored: bool) -> Examples:
        """Returns the lengths of a split's captions or, for scoring, of its images with all their captions."""
        of = self._splits[split]
        lengths = of.tokens.lengths + 1
        if not scored:
            lengths = np.tile(lengths, 2 if self.horizontal_flip else 1)
            return Examples(lengths[:, None], lengths)
        longest = np.maximum.reduceat(lengths, of.first[:-1]) if len(of.pictures) else lengths
        return Examples((longest * np.diff(of.first))[:, None], np.diff(of.first))

    def batch(self, split: str, spec: BatchSpec, scale: float, *, scored: bool) -> CaptionBatch:
        """Builds a batch of captions and their images or, for scoring, of images and all their captions.

        Indices of captions and images after the last refer to the mirrored images, in the same order.
        """
        of, rows = self._splits[split], spec.rows
        if scored:
            images = rows
            captions = np.concatenate([np.arange(*of.first[row : row + 2]) for row in rows.tolist()])
            about = np.repeat(np.arange(len(rows)), np.diff(of.first)[rows])
        else:
            captions, way = rows % len(of.owners), rows // len(of.owners)
            images, about = np.unique(of.owners[captions] + way * len(of.pictures), return_inverse=True)
        views = self._images(split, images)
        images = images % len(of.pictures)
        return CaptionBatch(
            images=views,
            rows=torch.as_tensor(about),
            **teacher_forcing_batch(documents(of.tokens, captions), self.tokenizer.start)._asdict(),
            examples=torch.as_tensor(images),
            scale=scale,
            references=tuple(tuple(of.captions[of.first[row] : of.first[row + 1]]) for row in images.tolist()),
            places=tuple(of.places[row] for row in images.tolist()),
        )

    def example(self, folder: Path) -> str:
        """Writes the first evaluated image after its transform to a file and returns the path."""
        path = folder / "example.png"
        self.picture(self.evaluated_split, 0).save(path)
        return quoted_path(path)

    def own_files(self) -> str:
        """See `SequenceData.own_files`."""
        return "data=captioned_images data.files=FILE 'data.split_fractions=[0,0,1]'"

    def references(self, split: str) -> list[list[str]]:
        """Returns all captions of each image of a split."""
        of = self._splits[split]
        return [of.captions[begin:end] for begin, end in pairwise(of.first.tolist())]

    def picture(self, split: str, row: int) -> Any:
        """Returns an image after its transform, as a PIL image."""
        one = self._splits[split].pictures[row]
        return self._transform.picture(read_image(one.source, one.path, max_pixels=self._max_pixels))

    def _images(self, split: str, views: Ints) -> Tensor:
        """Returns images, or their features, in ascending order; indices after the last are mirrored images."""
        if split not in self._features:
            return self._read(split, views)
        count = len(self._splits[split].pictures)
        files = enumerate(self._features[split])
        return torch.cat([file.read(views[views // count == way] % count) for way, file in files])

    def _read(self, split: str, views: Ints) -> Tensor:
        count = len(self._splits[split].pictures)
        images = [self._transform.encode(self._readable(split, view % count)) for view in views.tolist()]
        return torch.stack([each.flip(-1) if view >= count else each for each, view in zip(images, views, strict=True)])

    def _readable(self, split: str, row: int) -> Any:
        one = self._splits[split].pictures[row]
        name = one.path or self._splits[split].places[row]
        return read_image(one.source, name, max_pixels=self._max_pixels)

    def _compute_features(self) -> None:
        """Computes the features of the network's trunk for all images, unless they are in the cache."""
        encoder = getattr(self.network, "encoder", None)
        if not isinstance(encoder, ImageEncoder):
            raise DataError(
                "features=cached needs a network with an ImageEncoder, and a call of task.attach(data) before "
                "Trainer.fit"
            )
        about = {
            "transform": self._transform.to_dict(),
            "images": self._source.fingerprint(),
            # The images, but not the tokens of captions: a second stage may have another vocabulary.
            "places": {split: of.places for split, of in self._splits.items()},
        }
        device = torch.device("cpu") if self._attached is None else self._attached.strategy.root_device
        views = {split: (np.arange(len(of.pictures)), partial(self._read, split)) for split, of in self._splits.items()}
        found = cached_features(self._cache, encoder, views, about, device)
        self._features = {split: [features] for split, features in found.items()}
        if self.horizontal_flip and "train" in views:
            rows, read = views["train"]
            found = cached_features(self._cache, encoder, {"train": (rows + len(rows), read)}, about, device)
            self._features["train"].append(found["train"])


def _caption_processor(plain: Mapping[str, Any]) -> tuple[ImageTransform, Tokenizer]:
    source, target = build_processor(plain, trusted=TRUSTED)
    if not isinstance(source, ImageTransform) or not isinstance(target, Tokenizer):
        raise DataError(
            f"the checkpoint's network reads with {article(type(source).__name__)}; captioning needs an "
            "ImageTransform and a Tokenizer"
        )
    return source, target
