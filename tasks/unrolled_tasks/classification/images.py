"""Images, read as sequences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from unrolled.processing.frames import ORDERS, ImageSequence
from unrolled.processing.images import MAX_PIXELS, read_pixels
from unrolled.training.console.terminal import quoted_path
from unrolled.training.data.base import DataError
from unrolled.training.data.examples import Example
from unrolled.training.data.modalities import Modality, located


class Images(Modality):
    """Images from folders, tables with paths, data sets of the hub, and scikit-learn's digits.

    Args:
        order: the steps of the sequence: "rows", "columns", "pixels" or "patches".
        size: height and width to which images are resized, or one number for both; None for those of the first image.
        color: use three channels instead of one.
        patch: side of a patch.
        stride: distance between patches; None for the side of a patch.
        permutation: seed of a permutation of the steps, equal for all images (Le et al. 2015); None for no permutation.
        max_pixels: maximum number of pixels; a larger image is refused before it is decoded.

    Raises:
        DataError: an unknown order, or a limit below 1.
    """

    reads: ClassVar[type] = ImageSequence
    data: ClassVar[str] = "images"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
    what: ClassVar[str] = "pictures"

    def __init__(
        self,
        order: str = "rows",
        size: Sequence[int] | int | None = None,
        color: bool = False,
        patch: int = 4,
        stride: int | None = None,
        permutation: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if order not in ORDERS:
            raise DataError(f"order={order!r} must be one of {', '.join(ORDERS)}")
        if max_pixels < 1:
            raise DataError(f"max_pixels={max_pixels}: must be 1 or more")
        self.max_pixels = max_pixels
        self.order, self.color = order, color
        self.size = [size, size] if isinstance(size, int) else size
        self.patch, self.stride, self.permutation = patch, stride, permutation

    def options(self) -> dict[str, Any]:
        return {
            "order": self.order,
            "size": None if self.size is None else list(self.size),
            "color": self.color,
            "patch": self.patch,
            "stride": self.stride,
            "permutation": self.permutation,
            "max_pixels": self.max_pixels,
        }

    def open(self, example: Example) -> Tensor:
        if isinstance(example.source, Tensor):
            return example.source
        return read_pixels(located(example), color=self.color, max_pixels=self.max_pixels)

    def display_name(self, example: Example, source: Tensor) -> str:
        return example.source if isinstance(example.source, str) else example.place

    def example(self, example: Example, folder: Path) -> str | None:
        """Returns the path of the image's file; writes one if there is none."""
        own = super().example(example, folder)
        if own is not None:
            return own
        from PIL import Image

        values = (_unit(self.open(example)) * 255).round().byte().permute(1, 2, 0).squeeze(-1)
        path = folder / "example.png"
        Image.fromarray(values.numpy()).save(path)
        return quoted_path(path)

    def fit(self, sources: Sequence[Tensor]) -> ImageSequence:
        channels = 3 if self.color else 1
        size = tuple(self.size or sources[0].shape[1:])
        options: dict[str, Any] = {"patch": self.patch, "stride": self.stride, "order": self.order}
        try:
            plain = ImageSequence(size, channels, **options)
        except ValueError as error:
            raise DataError(f"images: {error}") from error
        values = torch.cat([_unit(source).flatten() for source in sources[:1000]])
        deviation = float(values.std())
        if bool((values == values[0]).all()):
            raise DataError("all pixels of all training images have the same value")
        permutation = None
        if self.permutation is not None:
            generator = torch.Generator().manual_seed(self.permutation)
            permutation = torch.randperm(plain.steps, generator=generator).tolist()
        return ImageSequence(
            size, channels, permutation=permutation, center=float(values.mean()), scale=deviation, **options
        )

    def read(self, source: Tensor, extractor: ImageSequence) -> Tensor:
        return extractor(_unit(source))

    def describe(self, extractor: ImageSequence) -> str:
        return f"{extractor.steps} {extractor.order} of {extractor.output_size} numbers"


def _unit(picture: Tensor) -> Tensor:
    """Converts bytes to values from 0 to 1."""
    return picture.float() / 255 if picture.dtype == torch.uint8 else picture
