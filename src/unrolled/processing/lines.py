"""Conversion of images of text lines to sequences of their columns, and augmentation of such images."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, interpolate, pad

from unrolled.processing.frames import FeatureExtractor
from unrolled.processing.images import MAX_PIXELS, open_pixels
from unrolled.shapes import ShapeError, expect

_LEAST_CONTRAST = 0.02  # of an image with something on it; noise below it is not amplified
_WIDEST = 100  # times the height: a wider image is not one line


class LineColumns(FeatureExtractor):
    """Converts the image of a line of text to its columns, from left to right.

    The image is scaled to one height, and its width in proportion. Brightness becomes ink: the difference from the
    background, which is the median, relative to the greatest difference. White letters on black therefore equal black
    ones on white, and gray paper is no ink.

    Args:
        height: height in pixels to which images are scaled.
        width: number of neighboring columns in a frame.
        stride: columns from one frame to the next.

    Raises:
        ValueError: a size below one.
    """

    def __init__(self, height: int = 32, width: int = 4, stride: int = 2) -> None:
        super().__init__()
        if min(height, width, stride) < 1:
            raise ValueError(f"height={height}, width={width}, stride={stride}: expected 1 or more")
        self.height, self.width, self.stride = height, width, stride
        self.output_size = height * width

    def forward(self, source: Tensor) -> Tensor:
        """Convert an image (1, height, width) with values from 0 to 1 to frames (time, features).

        The features of a frame are its rows from top to bottom, and its columns within each.

        Raises:
            ShapeError: another number of channels.
            ValueError: an image without a pixel, or far too wide for a line.
        """
        expect(source, "channels height width", channels=1, name="image")
        _, height, width = source.shape
        if height == 0 or not 0 < width <= _WIDEST * height:
            raise ValueError(f"an image of {width} × {height} pixels is not a line of text")
        source = source.float()
        if height != self.height:
            size = (self.height, max(1, round(width * self.height / height)))
            source = interpolate(source[None], size, mode="bilinear", antialias=True)[0]
        ink = (source[0] - source.median()).abs()
        ink = ink / ink.max().clamp(min=_LEAST_CONTRAST)
        missing = (self.steps(*ink.shape) - 1) * self.stride + self.width - ink.shape[1]
        columns = pad(ink, (0, max(0, missing))).unfold(1, self.width, self.stride)  # (height, time, width)
        return columns.transpose(0, 1).flatten(1)

    def steps(self, height: int, width: int) -> int:
        """Return the number of frames of an image of this size in pixels: all of its columns are in a frame."""
        scaled = width if height == self.height else max(1, round(width * self.height / height))
        return max(0, -(-(scaled - self.width) // self.stride)) + 1

    def encode(self, value: Any, *, max_pixels: int = MAX_PIXELS) -> Tensor:
        """Open an image, see `open_pixels`, and convert it to frames (time, features)."""
        return self(open_pixels(value, color=False, max_pixels=max_pixels))

    def picture(self, frames: Tensor) -> Tensor:
        """Return the ink (height, columns) of frames (time, features)."""
        columns = frames.view(len(frames), self.height, self.width)[:, :, : self.stride]
        return columns.transpose(0, 1).flatten(1)

    def to_dict(self) -> dict[str, Any]:
        sizes = {"height": self.height, "width": self.width, "stride": self.stride}
        return {"_target_": "unrolled.LineColumns", **sizes}


class LineAugmentation:
    """Random changes of the image of a line. Each is drawn independently; 0 disables it.

    All random numbers of an image come from its own seed, so they don't depend on the number of processes.

    Args:
        slant: maximum slant to the left or right, as pixels per pixel of height.
        shift: maximum shift up or down, as a fraction of the height.
        scale: s of a factor from 1 − s to 1 + s for the size of the letters in the image.
        blur: maximum deviation of a blur, as a fraction of the height.
        noise: maximum deviation of the noise of each pixel, where 1 is the difference of black and white.
        fade: maximum loss of contrast, as a fraction.

    Raises:
        ValueError: a value that is negative or not finite, or a scale or fade of 1 or more.
    """

    def __init__(
        self,
        *,
        slant: float = 0.0,
        shift: float = 0.0,
        scale: float = 0.0,
        blur: float = 0.0,
        noise: float = 0.0,
        fade: float = 0.0,
    ) -> None:
        for name, value in {"slant": slant, "shift": shift, "scale": scale, "blur": blur, "noise": noise}.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"augmentation: {name}={value}: expected a finite number, 0 or more")
        if scale >= 1 or not 0 <= fade < 1:
            raise ValueError(f"augmentation: scale={scale}, fade={fade}: expected 0 or more, and below 1")
        self.slant, self.shift, self.scale = slant, shift, scale
        self.blur, self.noise, self.fade = blur, noise, fade

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """Return a changed image (1, height, width) of an image with values from 0 to 1, no narrower.

        Raises:
            ShapeError: not one channel.
        """
        if image.dim() != 3 or len(image) != 1:
            raise ShapeError(f"the image has the shape {tuple(image.shape)}, expected (1, height, width)")
        generator = torch.Generator().manual_seed(seed)
        slant, shift, scale, blur, noise, fade = torch.rand(6, generator=generator).tolist()
        background = image.median()
        ink = self._moved(image - background, _signed(slant), _signed(shift), _signed(scale))
        ink = _blurred(ink, blur * self.blur * image.shape[1]) * (1 - fade * self.fade)
        ink = ink + noise * self.noise * torch.randn(ink.shape, generator=generator)
        return (ink + background).clamp(0, 1)

    def _moved(self, ink: Tensor, slant: float, shift: float, scale: float) -> Tensor:
        if not (self.slant or self.shift or self.scale):
            return ink
        _, height, width = ink.shape
        slant, shift, scale = slant * self.slant, shift * self.shift, 1 + scale * self.scale
        wide = width * max(1.0, scale) + abs(slant) * height
        target = max(width, round(wide))
        # In units of half the size of the result and of the image, from the middle.
        matrix = torch.tensor(
            [[target / width / scale, slant * height / width / scale, 0.0], [0.0, 1 / scale, 2 * shift]]
        )
        grid = affine_grid(matrix[None], [1, 1, height, target], align_corners=False)
        return grid_sample(ink[None], grid, align_corners=False)[0]


def _signed(share: float) -> float:
    return 2 * share - 1


def _blurred(ink: Tensor, deviation: float) -> Tensor:
    """Blur with a normal distribution of this deviation in pixels."""
    if deviation <= 0:
        return ink
    reach = math.ceil(3 * deviation)
    weights = (-(torch.arange(-reach, reach + 1) ** 2) / (2 * deviation**2)).exp()
    weights = (weights / weights.sum()).view(1, 1, 1, -1)
    padded = pad(ink[None], (reach, reach, reach, reach), mode="replicate")
    return conv2d(conv2d(padded, weights), weights.transpose(2, 3))[0]
