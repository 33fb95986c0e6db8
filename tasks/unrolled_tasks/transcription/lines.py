"""Images of text lines, read as their columns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor

from unrolled.processing.images import MAX_PIXELS, read_pixels
from unrolled.processing.lines import LineAugmentation, LineColumns
from unrolled.processing.transform import Transform
from unrolled.training.console.terminal import quoted_path
from unrolled.training.data.base import DataError
from unrolled.training.data.examples import Example
from unrolled.training.data.modalities import Modality, located


class LineImages(Modality):
    """Images of text lines from folders, tables with paths, data sets of the hub, and drawn lines.

    Args:
        columns: how images are read: a `LineColumns`.
        augmentation: changes of training images, new in each epoch; None for none.
        max_pixels: maximum number of pixels; a larger image is refused before it is decoded.

    Raises:
        DataError: a limit below 1.
    """

    reads: ClassVar[type] = LineColumns
    data: ClassVar[str] = "lines"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
    what: ClassVar[str] = "images"

    def __init__(
        self, columns: LineColumns, augmentation: LineAugmentation | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        if max_pixels < 1:
            raise DataError(f"max_pixels={max_pixels}: must be 1 or more")
        self.columns, self.augmentation, self.max_pixels = columns, augmentation, max_pixels

    @property
    def augments(self) -> bool:
        return self.augmentation is not None

    def open(self, example: Example) -> Tensor:
        """Returns the bytes of an image (1, height, width)."""
        if isinstance(example.source, Tensor):
            return example.source
        return read_pixels(located(example), color=False, max_pixels=self.max_pixels)

    def fit(self, sources: Sequence[Tensor]) -> LineColumns:
        return self.columns

    def restore(self, transform: Transform) -> None:
        super().restore(transform)
        self.columns = cast("LineColumns", transform)

    def options(self) -> dict[str, Any]:
        return {"columns": self.columns.to_dict(), "max_pixels": self.max_pixels}

    def read(self, source: Tensor, extractor: LineColumns) -> Tensor:
        return extractor(source.float() / 255)

    def steps(self, source: Tensor, extractor: LineColumns) -> int:
        return extractor.steps(*source.shape[1:])

    def augmented(self, sources: Sequence[Tensor], extractor: LineColumns, seeds: Sequence[int]) -> list[Tensor]:
        if self.augmentation is None:
            return [self.read(source, extractor) for source in sources]
        pairs = zip(sources, seeds, strict=True)
        return [extractor(self.augmentation(source.float() / 255, seed)) for source, seed in pairs]

    def display_name(self, example: Example, source: Tensor) -> str:
        return example.source if isinstance(example.source, str) else example.place

    def example(self, example: Example, folder: Path) -> str | None:
        """Returns the path of the image's file; writes one if there is none."""
        own = super().example(example, folder)
        if own is not None:
            return own
        from PIL import Image

        path = folder / "example.png"
        Image.fromarray(self.open(example)[0].numpy()).save(path)
        return quoted_path(path)

    def describe(self, extractor: LineColumns) -> str:
        return f"columns of {extractor.height} pixels, {extractor.width} in a frame"
