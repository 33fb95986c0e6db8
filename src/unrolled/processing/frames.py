"""Conversion of sensor series and images to sequences of frames.

An extractor is fitted on the training split, is stored in the checkpoint as plain data, and needs torch alone.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from unrolled.processing.images import MAX_PIXELS, open_pixels
from unrolled.processing.transform import Transform
from unrolled.shapes import expect
from unrolled.wording import article, counted


class FeatureExtractor(nn.Module, Transform):
    """Base class of extractors, which convert a source to frames (time, output_size). They have no parameters.

    `encode` opens a source as it is found, such as a path, and `forward` converts the tensor that it holds.
    """

    output_size: int

    @abstractmethod
    def forward(self, source: Tensor) -> Tensor:
        """Convert a source to frames (time, output_size).

        Raises:
            ValueError: an invalid source.
        """

    @abstractmethod
    def encode(self, value: Any) -> Tensor:
        """Open a source and convert it to frames (time, output_size).

        Raises:
            ValueError: a source that can't be opened or converted.
        """

    def collate(self, encoded: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(frames) for frames in encoded])
        return nn.utils.rnn.pad_sequence(list(encoded), batch_first=True), lengths


def as_values(source: Any, wanted: str) -> Tensor:
    """Convert an array to a tensor, and check that it has real numbers.

    Args:
        source: a tensor, or any object with the array protocol.
        wanted: end of the error message, such as "samples must be a tensor or an array (time,)".

    Raises:
        ValueError: something else, or values that are not real numbers.
    """
    if isinstance(source, str | bytes) or not (isinstance(source, Tensor) or hasattr(source, "__array__")):
        raise ValueError(f"it is {article(type(source).__name__)}; {wanted}")
    try:
        # A copy, since an array may be read-only, which tensors don't support.
        values = source if isinstance(source, Tensor) else torch.tensor(source.__array__())
    except (TypeError, ValueError, RuntimeError) as error:  # arrays of objects or text, or rows of unequal length
        raise ValueError(f"it is {article(type(source).__name__)} with values other than numbers: {error}") from None
    if values.is_complex():
        raise ValueError(f"it has complex numbers; {wanted}")
    return values


_ROUNDING = 4  # units in the last place: a feature that varies by no more is constant


class Moments:
    """Accumulates the mean and the standard deviation of each feature over several sequences."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = torch.zeros((), dtype=torch.float64)
        self._square = torch.zeros((), dtype=torch.float64)
        self._low, self._high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        self._precision = torch.finfo(torch.float64).eps

    def update(self, values: Tensor) -> None:
        """Add values (time, features) of any dtype (Chan et al. 1983, eq. 2.1)."""
        if len(values) == 0:
            return
        if values.is_floating_point():
            self._precision = max(self._precision, torch.finfo(values.dtype).eps)
        values = values.double()
        self._low, self._high = torch.minimum(self._low, values.amin(0)), torch.maximum(self._high, values.amax(0))
        count, mean = len(values), values.mean(0)
        square = (values - mean).square().sum(0)
        total = self._count + count
        difference = mean - self._mean
        self._square = self._square + square + difference.square() * self._count * count / total
        self._mean = self._mean + difference * count / total
        self._count = total

    @property
    def has_values(self) -> bool:
        """Whether values were added."""
        return self._count > 0

    def result(self) -> tuple[list[float], list[float]]:
        """Return means and standard deviations. The scale of a constant feature is 1, so that it is normalized to 0.

        Raises:
            ValueError: no values were added, or values that aren't finite or are too large.
        """
        if self._count == 0:
            raise ValueError("there are no steps to compute a mean of")
        deviation = (self._square / self._count).sqrt()
        if not bool(deviation.isfinite().all()):
            raise ValueError("the values are not finite, or too large for a mean and a standard deviation")
        rounding = _ROUNDING * self._precision * torch.maximum(self._low.abs(), self._high.abs())
        varies = (self._high - self._low > rounding) & (deviation > 0)
        scales = torch.where(varies, deviation, torch.ones_like(deviation))
        return self._mean.tolist(), scales.tolist()


def _normalization(centers: Sequence[float], scales: Sequence[float], size: int, what: str) -> tuple[Tensor, Tensor]:
    if not len(centers) == len(scales) == size or not all(0 < scale < float("inf") for scale in scales):
        raise ValueError(f"centers and scales have {len(centers)} and {len(scales)} numbers, expected {size} {what}")
    return torch.tensor(centers, dtype=torch.float64), torch.tensor(scales, dtype=torch.float64)


class SeriesScaler(FeatureExtractor):
    """Normalizes a multichannel series with the mean and the standard deviation of each channel.

    Args:
        channels: names of the channels.
        centers: the value subtracted from each channel.
        scales: the divisor of each channel.

    Raises:
        ValueError: no channels, or different numbers of channels, centers and scales.
    """

    def __init__(self, channels: Sequence[str], centers: Sequence[float], scales: Sequence[float]) -> None:
        super().__init__()
        if not channels:
            raise ValueError("channels is empty, expected one channel or more")
        self.channels = list(channels)
        self.output_size = len(self.channels)
        self.centers, self.scales = _normalization(centers, scales, self.output_size, "channels")

    @classmethod
    def fit(cls, series: Sequence[Tensor], channels: Sequence[str], *, normalize: bool = True) -> Self:
        """Return a scaler with centers and scales of the training split, or one without effect if not `normalize`."""
        if not normalize:
            return cls(channels, [0.0] * len(channels), [1.0] * len(channels))
        moments = Moments()
        for one in series:
            moments.update(one)
        return cls(channels, *moments.result())

    def forward(self, source: Tensor) -> Tensor:
        """Normalize a series (time, channels) of any dtype; the result is float32.

        The center is subtracted in float64, since float32 may not represent small changes of large values.

        Raises:
            ValueError: another number of channels, or a value that isn't finite or is too large for float32.
        """
        expect(source, "time channels", channels=self.output_size, name="series")
        centers, scales = self.centers.to(source.device), self.scales.to(source.device)
        frames = ((source.double() - centers) / scales).float()
        wrong = (~frames.isfinite()).nonzero()
        if len(wrong):
            step, channel = wrong[0].tolist()
            number = source[step, channel]
            what = "too large for float32" if number.isfinite() else "not finite"
            raise ValueError(
                f"step {step} (the first is 0), channel {self.channels[channel]!r} is {number.item()}, "
                f"one of {len(wrong)} values that are {what}; replace or remove them"
            )
        return frames

    def encode(self, value: Any) -> Tensor:
        """Scale a tensor or an array (time, channels)."""
        return self(as_values(value, f"{article(type(self).__name__)} needs a tensor or an array"))

    def decode(self, encoded: Tensor, given: Any = None) -> Tensor:
        """Return a series (time, channels) in its own units, in float64."""
        return encoded.double() * self.scales.to(encoded.device) + self.centers.to(encoded.device)

    def normalize(self, value: Any) -> Tensor:
        """Return a series as it is, in float64."""
        return as_values(value, f"{article(type(self).__name__)} needs a tensor or an array").double()

    def to_dict(self) -> dict[str, Any]:
        return {
            "_target_": "unrolled.SeriesScaler",
            "channels": self.channels,
            "centers": self.centers.tolist(),
            "scales": self.scales.tolist(),
        }


ORDERS = ("rows", "columns", "pixels", "patches")


class ImageSequence(FeatureExtractor):
    """Converts an image to a sequence of its rows, columns, pixels or patches.

    Patches are ordered row by row. If the stride is smaller than the patch, patches overlap, and an encoder with
    `filters` applies a convolution to the image.

    Args:
        size: height and width in pixels; other images are resized, with antialiasing.
        channels: 1 for grayscale, 3 for color.
        order: "rows", "columns", "pixels" or "patches".
        patch: size of a patch in pixels.
        stride: pixels from one patch to the next; `patch` by default.
        permutation: a permutation of the steps; None for none.
        center: subtracted from each value, which is between 0 and 1.
        scale: divisor of each value.

    Raises:
        ValueError: a size below one, an unknown order, a patch that is too large, an invalid permutation.
    """

    def __init__(
        self,
        size: Sequence[int],
        channels: int = 1,
        order: str = "rows",
        patch: int = 4,
        stride: int | None = None,
        permutation: Sequence[int] | None = None,
        center: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if order not in ORDERS:
            raise ValueError(f"order is {order!r}, expected one of {', '.join(ORDERS)}")
        if len(size) != 2 or min(*size, channels, patch, stride or 1) < 1 or not 0 < scale < float("inf"):
            raise ValueError(
                f"size={list(size)}, channels={channels}, patch={patch}, stride={stride}, scale={scale}: expected a "
                "height and a width, and values above 0"
            )
        if order == "patches" and patch > min(size):
            raise ValueError(f"patch={patch} is larger than the image of {size[0]} × {size[1]}")
        self.size, self.channels, self.order = (int(size[0]), int(size[1])), channels, order
        self.patch, self.stride = patch, stride or patch
        self.center, self.scale = center, scale
        height, width = self.size
        places = [(edge - patch) // self.stride + 1 for edge in self.size]
        steps, features = {
            "rows": (height, width),
            "columns": (width, height),
            "pixels": (height * width, 1),
            "patches": (places[0] * places[1], patch * patch),
        }[order]
        self.steps, self.output_size = steps, features * channels
        if permutation is not None and sorted(permutation) != list(range(steps)):
            raise ValueError(
                f"permutation must contain each of 0 … {steps - 1} once: the image has {counted(steps, 'step')}"
            )
        self.permutation = None if permutation is None else list(permutation)

    def forward(self, source: Tensor) -> Tensor:
        """Convert an image (channels, height, width) with values from 0 to 1 to (time, features).

        Raises:
            ShapeError: another number of channels.
        """
        expect(source, "channels height width", channels=self.channels, name="image")
        if tuple(source.shape[1:]) != self.size:
            source = nn.functional.interpolate(source[None].float(), self.size, mode="bilinear", antialias=True)[0]
        frames = self._frames((source.float() - self.center) / self.scale)
        return frames if self.permutation is None else frames[self.permutation]

    def _frames(self, picture: Tensor) -> Tensor:
        if self.order == "rows":
            return picture.permute(1, 2, 0).flatten(1)
        if self.order == "columns":
            return picture.permute(2, 1, 0).flatten(1)
        if self.order == "pixels":
            return picture.permute(1, 2, 0).flatten(0, 1)
        return nn.functional.unfold(picture[None], self.patch, stride=self.stride)[0].T

    def encode(self, value: Any, *, max_pixels: int = MAX_PIXELS) -> Tensor:
        """Open an image, see `open_pixels`, and convert it to frames (time, features)."""
        return self(open_pixels(value, color=self.channels == 3, max_pixels=max_pixels))

    def to_dict(self) -> dict[str, Any]:
        return {
            "_target_": "unrolled.ImageSequence",
            "size": list(self.size),
            "channels": self.channels,
            "order": self.order,
            "patch": self.patch,
            "stride": self.stride,
            "permutation": self.permutation,
            "center": self.center,
            "scale": self.scale,
        }
