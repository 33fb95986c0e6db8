"""Images as the intensities of their pixels, which can be converted back."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from unrolled.processing.images import MAX_PIXELS, open_pixels
from unrolled.processing.transform import Transform
from unrolled.shapes import expect


class PixelTransform(Transform):
    """Converts an image to intensities (channels, height, width) from 0 to 1, or to 0 and 1.

    Args:
        size: height and width in pixels; other images are resized, with antialiasing.
        channels: 1 for grayscale, 3 for color.
        binary: whether an intensity of ½ or more becomes 1, and others 0.

    Raises:
        ValueError: a size below one, or another number of channels.
    """

    def __init__(self, size: Sequence[int], channels: int = 1, binary: bool = False) -> None:
        if len(size) != 2 or min(size) < 1 or channels not in (1, 3):
            raise ValueError(
                f"size={list(size)}, channels={channels}: expected a height and a width of 1 or more, and 1 or 3"
            )
        self.size, self.channels, self.binary = (int(size[0]), int(size[1])), channels, binary

    def encode(self, value: Any, *, max_pixels: int = MAX_PIXELS) -> Tensor:
        """Open an image, see `open_pixels`, and convert it."""
        intensities = self.intensities(open_pixels(value, color=self.channels == 3, max_pixels=max_pixels))
        return (intensities >= 0.5).float() if self.binary else intensities

    def intensities(self, image: Tensor) -> Tensor:
        """Resize an image (channels, height, width) with values from 0 to 1.

        Raises:
            ShapeError: another number of channels.
        """
        expect(image, "channels height width", channels=self.channels, name="image")
        image = image.float()
        if tuple(image.shape[1:]) == self.size:
            return image
        return interpolate(image[None], self.size, mode="bilinear", antialias=True)[0].clamp(0.0, 1.0)

    def decode(self, encoded: Tensor, given: Any = None) -> Tensor:
        """Return an image (channels, height, width) as bytes, uint8."""
        return (encoded * 255).round().to(torch.uint8)

    def normalize(self, value: Any) -> Tensor:
        """Return an image in this size, binary if this is, as bytes (channels, height, width)."""
        return self.decode(self.encode(value))

    def collate(self, encoded: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return torch.stack(list(encoded)), torch.ones(len(encoded), dtype=torch.int64)

    def to_dict(self) -> dict[str, Any]:
        return {
            "_target_": "unrolled.PixelTransform",
            "size": list(self.size),
            "channels": self.channels,
            "binary": self.binary,
        }
