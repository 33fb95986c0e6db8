"""Attention to a part of an image through a grid of Gaussian filters, differentiable in its place and size."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unrolled.shapes import expect


class GaussianGrid(NamedTuple):
    """A grid of size × size Gaussian filters over images, one grid for each image of a batch.

    Pixels are numbered from 1, as in the paper: a grid in the middle of a side of 28 pixels has its center at 14.5.

    Attributes:
        rows: (batch, size, height), the filters of the grid's rows; each sums to 1. F_Y in the paper.
        columns: (batch, size, width), likewise for columns. F_X in the paper.
        intensity: (batch,), γ: factor of what is read, divisor of what is written.
        center_y: (batch,), row of the grid's center, in pixels.
        center_x: (batch,), column of the grid's center, in pixels.
        stride: (batch,), distance between the centers of filters, in pixels.
        deviation: (batch,), standard deviation of the filters, in pixels.
    """

    rows: Tensor
    columns: Tensor
    intensity: Tensor
    center_y: Tensor
    center_x: Tensor
    stride: Tensor
    deviation: Tensor

    def read(self, images: Tensor) -> Tensor:
        """Read the patch (batch, channels, size, size) of images (batch, channels, height, width), times γ (eq. 27)."""
        patches = self.rows.unsqueeze(1) @ images @ self.columns.unsqueeze(1).mT
        return self.intensity.view(-1, 1, 1, 1) * patches

    def write(self, patches: Tensor) -> Tensor:
        """Spread patches (batch, channels, size, size) over images (batch, channels, height, width), by γ (eq. 29)."""
        images = self.rows.unsqueeze(1).mT @ patches @ self.columns.unsqueeze(1)
        return images / self.intensity.view(-1, 1, 1, 1)


class GridAttention(nn.Module):
    """Places a grid of Gaussian filters over an image: Gregor et al. 2015, "DRAW", section 3.2.

    A linear map of features has five outputs (g̃_Y, g̃_X, log σ², log δ̃, log γ), and for an image of B rows and A columns

    - g_Y = (B + 1) / 2 · (g̃_Y + 1) and g_X = (A + 1) / 2 · (g̃_X + 1) are the center of the grid,
    - δ = (max(A, B) − 1) / (N − 1) · δ̃ is the stride,
    - filter i of N has its mean at g + (i − N / 2 − 0.5) · δ, its variance is σ², and it sums to 1 over the pixels.

    Args:
        input_size: number of input features.
        size: number N of the grid's rows and of its columns.
        image_size: height and width of the images.
        initial_deviation: standard deviation of the filters before training, in pixels, for features of zeros. Filters
            that are wide for a small image blur it, so that learning begins slowly.

    Raises:
        ValueError: a size below one, or a deviation that is not above 0.
    """

    def __init__(
        self, input_size: int, size: int, image_size: tuple[int, int], *, initial_deviation: float = 1.0
    ) -> None:
        super().__init__()
        if min(input_size, size, *image_size) < 1:
            raise ValueError(
                f"input_size={input_size}, size={size}, image_size={tuple(image_size)}: expected 1 or more"
            )
        self.size, self.image_size = size, (image_size[0], image_size[1])
        if not 0.0 < initial_deviation < math.inf:
            raise ValueError(f"initial_deviation is {initial_deviation}, expected a number of pixels above 0")
        self.linear = nn.Linear(input_size, 5)
        with torch.no_grad():
            self.linear.bias[2] += 2 * math.log(initial_deviation)

    def forward(self, features: Tensor) -> GaussianGrid:
        """Place a grid for each row of features (batch, input)."""
        expect(features, "batch input", input=self.linear.in_features, name="features")
        height, width = self.image_size
        place_y, place_x, log_variance, log_stride, log_intensity = self.linear(features).unbind(-1)
        center_y = (height + 1) / 2 * (place_y + 1)
        center_x = (width + 1) / 2 * (place_x + 1)
        # One filter has no neighbour, and any stride leaves it at the center.
        stride = (max(height, width) - 1) / max(self.size - 1, 1) * log_stride.exp()
        rows = self._filters(center_y, stride, log_variance, height)
        columns = self._filters(center_x, stride, log_variance, width)
        return GaussianGrid(rows, columns, log_intensity.exp(), center_y, center_x, stride, (0.5 * log_variance).exp())

    def _filters(self, center: Tensor, stride: Tensor, log_variance: Tensor, pixels: int) -> Tensor:
        """Return the filters (batch, size, pixels) of one axis."""
        steps = torch.arange(self.size, device=center.device, dtype=center.dtype) - (self.size - 1) / 2
        means = center.unsqueeze(-1) + steps * stride.unsqueeze(-1)
        distances = torch.arange(1, pixels + 1, device=center.device, dtype=center.dtype) - means.unsqueeze(-1)
        # softmax divides by the sum of the exponentials, and has no 0 / 0 for a filter far outside of the image.
        return (-0.5 * distances.square() * (-log_variance).exp().view(-1, 1, 1)).softmax(-1)

    def extra_repr(self) -> str:
        return f"size={self.size}, image_size={self.image_size}"
