"""Images to draw, in batches."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled import PixelTransform, Processor, build_processor
from unrolled.processing.images import MAX_PIXELS
from unrolled.training.configuration.flat import flat_options
from unrolled.training.console.terminal import quoted_path
from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.bucketed import BucketData, Examples
from unrolled.training.data.buckets import BatchSpec, Ints
from unrolled.training.data.options import Batching, SourceOptions
from unrolled.training.data.splitting import Split
from unrolled_tasks.draw.sources import digits, images_of

BINARIZE = {
    "threshold": "binarized at ½",
    "sampled": "binarized by one draw of each pixel",
    "resampled": "binarized by a draw of each pixel in each epoch",
    "none": "as probabilities",
}
_PACKAGES = {"digits": digits}


class ImageBatch(NamedTuple):
    """A batch of images."""

    images: Tensor  # (batch, channels, height, width) float32 from 0 to 1
    lengths: Tensor  # (batch,) 1 each, since what is counted are images
    examples: Tensor  # (batch,) numbers of the examples within their split
    seeds: tuple[tuple[int, ...], ...]  # of the random numbers of each example in this epoch
    scale: float  # turns the summed loss into the batch's share of the step's mean


class DrawingData(BucketData[ImageBatch]):
    """Images of one size.

    Args:
        origin: files or a data set; fields of this and of the other options can be arguments, too.
        package: images of an installed package: "digits".
        image: column of the image, or of its path, in tables and data sets.
        size: height and width to which images are resized, or one number for both; None for those of the first image.
        color: use three channels instead of one.
        binarize: "threshold": a pixel of ½ or more is 1, others are 0; "sampled": a pixel is 1 with its intensity as
            probability, drawn once (Salakhutdinov & Murray 2008); "resampled": drawn anew in each epoch of training;
            "none": intensities are the probabilities to predict.
        max_pixels: maximum number of pixels; a larger image is refused before it is decoded.
        batching: batches.
        split: fractions for splits without their own images, divided off at random.
        processor_from: the processor of a trained network, as its `to_dict` wrote it.

    Raises:
        DataError: no source or several, or invalid options.
    """

    @flat_options
    def __init__(
        self,
        origin: SourceOptions = SourceOptions(),
        package: str | None = None,
        image: str = "image",
        size: Sequence[int] | int | None = None,
        color: bool = False,
        binarize: str = "threshold",
        max_pixels: int = MAX_PIXELS,
        batching: Batching = Batching(batch_size=64),
        split: Split = Split(split_fractions=(0.8, 0.1, 0.1)),
        processor_from: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        origin.check_exactly_one("images", package=package)
        for name, value, known in (("package", package, _PACKAGES), ("binarize", binarize, BINARIZE)):
            if value is not None and value not in known:
                raise DataError(f"{name}={value!r} must be one of {', '.join(known)}")
        self._origin, self._split, self.batching = origin, split, batching
        self._package, self._column, self._max_pixels = package, image, max_pixels
        self._size, self._color, self._binarize = size, color, binarize
        self._transform = None if processor_from is None else self._restored(processor_from)
        self._images: dict[str, Tensor] = {}  # (images, channels, height, width) uint8, by split

    def _restored(self, processor_from: Mapping[str, Any]) -> PixelTransform:
        transform = build_processor(processor_from).source
        if not isinstance(transform, PixelTransform):
            raise DataError("the processor is of another task: drawing needs the intensities of pixels")
        if transform.binary != (self._binarize != "none"):
            kind, remedy = ("binary", "threshold") if transform.binary else ("not binary", "none")
            raise DataError(f"the network has drawn images that are {kind}; set data.binarize={remedy}")
        self._color = transform.channels == 3
        return transform

    def prepare(self) -> None:
        """See `SequenceData.prepare`."""
        if self._images:
            return
        found: dict[str, Iterable[Tensor]]
        if self._package is not None:
            found = {"train": _PACKAGES[self._package]()}
        else:
            found = dict(images_of(self._origin, self._column, color=self._color, max_pixels=self._max_pixels))
        read = {split: [self._resized(image) for image in images] for split, images in found.items()}
        train = read.pop("train", [])
        places = self._split.shuffled(len(train), list(read))
        read |= {split: [train[place] for place in indices] for split, indices in places.items()}
        if not any(read.values()):
            raise DataError("there are no images in these files")
        self._images = {split: torch.stack(read[split]) for split in SPLITS if read.get(split)}

    def _resized(self, image: Tensor) -> Tensor:
        """Returns bytes (channels, height, width) in the size of the transform, which the first image may give."""
        if self._transform is None:
            size = self._size or image.shape[1:]
            both = [size, size] if isinstance(size, int) else list(size)
            self._transform = PixelTransform(both, 3 if self._color else 1, binary=self._binarize != "none")
        if tuple(image.shape[1:]) == self._transform.size:
            return image
        return self._transform.decode(self._transform.intensities(image / 255))

    def sizes(self) -> dict[str, int]:
        """See `SequenceData.sizes`."""
        height, width = self._ready.size
        return {"height": height, "width": width, "channels": self._ready.channels}

    @property
    def _ready(self) -> PixelTransform:
        if self._transform is None:
            raise RuntimeError("the images are not read yet: call prepare() first")
        return self._transform

    def processor(self) -> Processor:
        """See `SequenceData.processor`."""
        return Processor(self._ready)

    def splits(self) -> Sequence[str]:
        """See `SequenceData.splits`."""
        return tuple(self._images)

    def describe(self) -> str:
        """See `SequenceData.describe`."""
        counts = ", ".join(f"{split} {len(images):,}" for split, images in self._images.items())
        height, width = self._ready.size
        color = "colored " if self._ready.channels == 3 else ""
        kind = f"{color}images of {height} × {width} pixels, {BINARIZE[self._binarize]}"
        return f"{counts} {kind}; scored: {self.evaluated_split}"

    def fingerprint(self) -> str:
        """See `SequenceData.fingerprint`."""
        train = self._images.get("train")
        return "" if train is None else hashlib.sha256(train.numpy().tobytes()).hexdigest()

    def example(self, folder: Path) -> str | None:
        """See `SequenceData.example`: the path of a new file."""
        from PIL import Image

        path = folder / "example.png"
        Image.fromarray(self._images[self.evaluated_split][0].permute(1, 2, 0).squeeze(-1).numpy()).save(path)
        return quoted_path(path)

    def own_files(self) -> str:
        """See `SequenceData.own_files`."""
        return "data=pixels data.files=FILE 'data.split_fractions=[0,0,1]'"

    def count(self, split: str) -> int:
        """Returns the number of images of a split."""
        return len(self._images[split])

    def read(self, split: str, numbers: Sequence[int] | Ints, epoch: int) -> tuple[Tensor, tuple[tuple[int, ...], ...]]:
        """Returns images of a split, as a network reads them in an epoch, and the seeds of their random numbers."""
        bytes_ = self._images[split][numbers]
        place = SPLITS.index(split)
        seeds = tuple((self.batching.seed, place, epoch, number) for number in map(int, numbers))
        if self._binarize == "threshold":
            return (bytes_ >= 128).float(), seeds
        intensities = bytes_.float() / 255
        if self._binarize == "none":
            return intensities, seeds
        draws = seeds if self._binarize == "resampled" else ((*seed[:2], 0, seed[3]) for seed in seeds)
        shape = tuple(bytes_.shape[1:])
        # One number more than the seed of the latent variables' noise has: the draws are independent.
        chances = [np.random.default_rng((*seed, 1)).random(shape, dtype=np.float32) for seed in draws]
        return (torch.from_numpy(np.stack(chances)) < intensities).float(), seeds

    def examples(self, split: str, *, scored: bool) -> Examples:
        """See `BucketData.examples`."""
        ones = np.ones(len(self._images[split]), dtype=np.int64)
        return Examples(ones[:, None], ones)

    def batch(self, split: str, spec: BatchSpec, scale: float, *, scored: bool) -> ImageBatch:
        """See `BucketData.batch`."""
        images, seeds = self.read(split, spec.rows, 0 if scored else spec.epoch)
        ones = torch.ones(len(images), dtype=torch.int64)
        return ImageBatch(images, ones, torch.as_tensor(spec.rows), seeds, scale)
