"""From numbers as they are found to the frames that a network reads: sensor series and pictures.

An extractor is fitted on the training split, travels in the checkpoint as plain data and needs torch alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from unrolled.shapes import expect
from unrolled.wording import counted


class FeatureExtractor(nn.Module, ABC):
    """Turns one source into frames (time, output_size); no parameter, nothing learned by gradients."""

    output_size: int

    @abstractmethod
    def forward(self, source: Tensor) -> Tensor:
        """A source as it is found -> (time, output_size).

        Raises:
            ValueError: a source that cannot be read, and why.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `unrolled.build` makes this extractor again."""


_ROUNDING = 4  # last places of a number: what varies by no more is constant


class Moments:
    """Mean and standard deviation of each feature, from one sequence after another."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = torch.zeros((), dtype=torch.float64)
        self._square = torch.zeros((), dtype=torch.float64)
        self._low, self._high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        self._precision = torch.finfo(torch.float64).eps

    def update(self, values: Tensor) -> None:
        """Takes in (time, features) of any kind of number (Chan et al. 1983, eq. 2.1)."""
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

    def result(self) -> tuple[list[float], list[float]]:
        """Centers and scales; a feature that varies by rounding alone has the scale 1, so that it becomes 0.

        Raises:
            ValueError: no step was seen, or a number that is not finite or too large.
        """
        if self._count == 0:
            raise ValueError("there is no step to take a mean of")
        deviation = (self._square / self._count).sqrt()
        if not bool(deviation.isfinite().all()):
            raise ValueError("numbers that are not finite, or too large, have no mean and deviation")
        rounding = _ROUNDING * self._precision * torch.maximum(self._low.abs(), self._high.abs())
        varies = (self._high - self._low > rounding) & (deviation > 0)
        scales = torch.where(varies, deviation, torch.ones_like(deviation))
        return self._mean.tolist(), scales.tolist()


def _normalization(centers: Sequence[float], scales: Sequence[float], size: int, what: str) -> tuple[Tensor, Tensor]:
    if not len(centers) == len(scales) == size or not all(0 < scale < float("inf") for scale in scales):
        raise ValueError(f"centers and scales have {len(centers)} and {len(scales)} numbers, expected {size} {what}")
    return torch.tensor(centers, dtype=torch.float64), torch.tensor(scales, dtype=torch.float64)


class SeriesScaler(FeatureExtractor):
    """Channels that were measured at the same times, each normalized by what the training split has shown.

    Args:
        channels: their names.
        centers: subtracted, one for each channel.
        scales: divided by.

    Raises:
        ValueError: no channel, or unequal counts.
    """

    def __init__(self, channels: Sequence[str], centers: Sequence[float], scales: Sequence[float]) -> None:
        super().__init__()
        if not channels:
            raise ValueError("a series has one channel or more")
        self.channels = list(channels)
        self.output_size = len(self.channels)
        self.centers, self.scales = _normalization(centers, scales, self.output_size, "channels")

    @classmethod
    def fit(cls, series: Sequence[Tensor], channels: Sequence[str], *, normalize: bool = True) -> Self:
        """Centers and scales of the training split; without normalization the numbers stay as they are."""
        if not normalize:
            return cls(channels, [0.0] * len(channels), [1.0] * len(channels))
        moments = Moments()
        for one in series:
            moments.update(one)
        return cls(channels, *moments.result())

    def forward(self, source: Tensor) -> Tensor:
        """(time, channels) of any kind of number -> the same, normalized, in float32.

        The center is subtracted in float64: a float32 far from zero holds the offset and no series.

        Raises:
            ValueError: other channels, or a number that is not finite or too large for float32, with its place.
        """
        expect(source, "time channels", channels=self.output_size, name="series")
        centers, scales = self.centers.to(source.device), self.scales.to(source.device)
        frames = ((source.double() - centers) / scales).float()
        wrong = (~frames.isfinite()).nonzero()
        if len(wrong):
            step, channel = wrong[0].tolist()
            number = source[step, channel]
            what = "too large to be read" if number.isfinite() else "not finite"
            raise ValueError(
                f"step {step} (the first is 0), channel {self.channels[channel]!r} is {number.item()}; "
                f"one of {len(wrong)} numbers that are {what}: fill them or take them out"
            )
        return frames

    def to_dict(self) -> dict[str, Any]:
        return {
            "_target_": "unrolled.SeriesScaler",
            "channels": self.channels,
            "centers": self.centers.tolist(),
            "scales": self.scales.tolist(),
        }


ORDERS = ("rows", "columns", "pixels", "patches")


class ImageSequence(FeatureExtractor):
    """A picture as a sequence: row by row, column by column, pixel by pixel or patch by patch.

    Patches are read as a page is. Where the stride is shorter than the patch they overlap, and an encoder with
    `filters` makes a small convolution of them, read place by place.

    Args:
        size: height and width in pixels; other pictures are resized, with antialiasing.
        channels: 1 for grey, 3 for color.
        order: "rows", "columns", "pixels" or "patches".
        patch: edge of a patch in pixels.
        stride: pixels from one patch to the next; by default the edge, so that none overlap.
        permutation: an order of the steps in which they are read; None keeps them.
        center: subtracted from each value, which lies from 0 to 1.
        scale: divided by.

    Raises:
        ValueError: a size below one, an unknown order, a patch that doesn't fit, something else than a permutation.
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
            raise ValueError(f"order={order!r} is one of {', '.join(ORDERS)}")
        if len(size) != 2 or min(*size, channels, patch, stride or 1) < 1 or not 0 < scale < float("inf"):
            raise ValueError(
                f"size={list(size)}, channels={channels}, patch={patch}, stride={stride}, scale={scale}: a height and "
                "a width, and all above 0"
            )
        if order == "patches" and patch > min(size):
            raise ValueError(f"patch={patch} is larger than the picture of {size[0]} × {size[1]}")
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
            raise ValueError(f"permutation: each of 0 … {steps - 1} once, as this picture has {counted(steps, 'step')}")
        self.permutation = None if permutation is None else list(permutation)

    def forward(self, source: Tensor) -> Tensor:
        """(channels, height, width) from 0 to 1 -> (time, features).

        Raises:
            ShapeError: another number of channels.
        """
        expect(source, "channels height width", channels=self.channels, name="picture")
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
