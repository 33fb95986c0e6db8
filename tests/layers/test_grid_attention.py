"""Grids of Gaussian filters: equations 19 to 29 of the paper as sums over pixels, far places, and gradients."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled import GaussianGrid, GridAttention, ShapeError

SIZES = [(3, (5, 7)), (2, (4, 4)), (1, (6, 3)), (5, (3, 3))]


def attention(size: int, image_size: tuple[int, int], scale: float = 1.0) -> GridAttention:
    torch.manual_seed(0)
    made = GridAttention(4, size, image_size).double()
    with torch.no_grad():
        made.linear.weight.mul_(scale)
    return made


def filters(numbers: list[float], size: int, pixels: int, longest: int, place: float) -> np.ndarray:
    """Equations 22 to 26 for one axis, with sums as the paper writes them."""
    _, _, log_variance, log_stride, _ = numbers
    center = (pixels + 1) / 2 * (place + 1)
    stride = (longest - 1) / (size - 1) * math.exp(log_stride) if size > 1 else 0.0
    found = np.zeros((size, pixels))
    for i in range(1, size + 1):
        mean = center + (i - size / 2 - 0.5) * stride
        for a in range(1, pixels + 1):
            found[i - 1, a - 1] = math.exp(-((a - mean) ** 2) / (2 * math.exp(log_variance)))
        found[i - 1] /= found[i - 1].sum()
    return found


@pytest.mark.parametrize(("size", "image_size"), SIZES)
def test_filters_reading_and_writing_are_the_sums_of_the_paper(
    size: int, image_size: tuple[int, int], generator: torch.Generator
) -> None:
    made = attention(size, image_size)
    features = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    images = torch.randn(3, 2, *image_size, generator=generator, dtype=torch.float64)
    patches = torch.randn(3, 2, size, size, generator=generator, dtype=torch.float64)

    grid = made(features)
    read, written = grid.read(images), grid.write(patches)

    for row, numbers in enumerate(made.linear(features).tolist()):
        height, width = image_size
        rows = filters(numbers, size, height, max(image_size), numbers[0])
        columns = filters(numbers, size, width, max(image_size), numbers[1])
        intensity = math.exp(numbers[4])
        np.testing.assert_allclose(grid.rows[row].detach(), rows, rtol=1e-12, atol=1e-300)
        np.testing.assert_allclose(grid.columns[row].detach(), columns, rtol=1e-12, atol=1e-300)
        for channel in range(2):
            image, patch = images[row, channel].numpy(), patches[row, channel].numpy()
            np.testing.assert_allclose(read[row, channel].detach(), intensity * rows @ image @ columns.T, rtol=1e-10)
            np.testing.assert_allclose(written[row, channel].detach(), rows.T @ patch @ columns / intensity, rtol=1e-10)


def test_the_middle_of_an_image_is_read_where_all_numbers_are_zero() -> None:
    made = attention(3, (5, 9), scale=0.0)
    with torch.no_grad():
        made.linear.bias.zero_()

    grid = made(torch.zeros(1, 4, dtype=torch.float64))

    assert (grid.center_y.item(), grid.center_x.item()) == (3.0, 5.0)
    assert grid.stride.item() == 4.0  # three filters, from the first of 9 pixels to the last
    assert grid.deviation.item() == grid.intensity.item() == 1.0
    torch.manual_seed(0)
    narrow = GridAttention(4, 3, (5, 9), initial_deviation=0.5).double()
    torch.manual_seed(0)
    wide = GridAttention(4, 3, (5, 9)).double()
    features = torch.ones(1, 4, dtype=torch.float64)
    assert narrow(features).deviation.item() == pytest.approx(0.5 * wide(features).deviation.item(), rel=1e-6)


def test_a_filter_far_outside_reads_the_nearest_edge_and_has_finite_gradients() -> None:
    made = attention(2, (4, 4), scale=0.0)
    with torch.no_grad():  # the first two features are the place alone
        made.linear.weight[:2, :2] = torch.eye(2)
    features = torch.tensor([[1e3, 0.0, 0.0, 0.0], [0.0, -1e3, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64)

    grid = made(features)
    grid.read(images).sum().backward()

    assert torch.isfinite(grid.rows).all()
    torch.testing.assert_close(grid.rows.sum(-1), torch.ones(2, 2, dtype=torch.float64))
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_gradients_are_those_of_finite_differences(generator: torch.Generator) -> None:
    made = attention(3, (4, 5))
    features = torch.randn(2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    images = torch.randn(2, 1, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    patches = torch.randn(2, 1, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)

    def both(features: Tensor, images: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        grid: GaussianGrid = made(features)
        return grid.read(images), grid.write(patches)

    assert torch.autograd.gradcheck(both, (features, images, patches))


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"size=0, image_size=\(4, 4\): expected 1 or more"):
        GridAttention(4, 0, (4, 4))
    with pytest.raises(ShapeError, match="features has the shape"):
        GridAttention(4, 2, (4, 4))(torch.zeros(2, 3))
