"""Images of lines as columns, and their augmentation, against PIL and in laws."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from unrolled import LineColumns, ShapeError, build
from unrolled.processing.lines import LineAugmentation


def line(height: int = 8, width: int = 20, seed: int = 0) -> Tensor:
    """A white image with black strokes."""
    strokes = torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed)) < 0.2
    return 1 - strokes.float()


@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 12), st.integers(1, 6), st.integers(1, 6))
def test_every_column_is_in_a_frame(height: int, width: int, scaled: int, columns: int, stride: int) -> None:
    transform = LineColumns(scaled, columns, stride)

    frames = transform(line(height, width))

    assert frames.shape == (transform.steps(height, width), scaled * columns)
    assert (len(frames) - 1) * stride + columns >= round(width * scaled / height)
    assert bool((frames >= 0).all())
    assert bool((frames <= 1).all())


def test_frames_are_the_columns_of_the_ink() -> None:
    image = line(8, 20)
    frames = LineColumns(8, 3, 2)(image)
    ink = torch.nn.functional.pad(1 - image[0], (0, 4))
    for number, frame in enumerate(frames):
        assert torch.equal(frame.view(8, 3), ink[:, 2 * number : 2 * number + 3])
    assert torch.equal(LineColumns(8, 3, 2).picture(frames)[:, :20], ink[:, :20])


def test_ink_is_that_of_white_on_black_and_of_gray_paper() -> None:
    transform, image = LineColumns(8, 4, 2), line()
    for other in (1 - image, 0.3 + 0.5 * image):
        torch.testing.assert_close(transform(other), transform(image), rtol=0, atol=1e-6)
    assert not bool(transform(torch.full((1, 8, 20), 0.7)).any())


def test_a_scaled_image_is_that_of_pillow() -> None:
    image = line(32, 80)
    picture = Image.fromarray((image[0] * 255).byte().numpy()).resize((40, 16), Image.Resampling.BILINEAR)
    scaled = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(1, 16, 40) / 255
    torch.testing.assert_close(LineColumns(16)(image), LineColumns(16)(scaled), rtol=0, atol=0.02)


def test_a_transform_is_its_description() -> None:
    transform = LineColumns(10, 3, 1)
    again = build(transform.to_dict())
    assert torch.equal(again(line()), transform(line()))


@pytest.mark.parametrize(
    ("shape", "said"), [((1, 0, 4), "0"), ((1, 4, 0), "0 × 4"), ((1, 2, 201), "201 × 2 pixels is not")]
)
def test_what_is_no_line_is_refused(shape: tuple[int, int, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LineColumns()(torch.zeros(shape))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="height=0, width=4, stride=2"):
        LineColumns(0)
    with pytest.raises(ShapeError, match="channels"):
        LineColumns()(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="blur=-1"):
        LineAugmentation(blur=-1)
    with pytest.raises(ValueError, match="fade=1"):
        LineAugmentation(fade=1.0)
    with pytest.raises(ShapeError, match="expected"):
        LineAugmentation()(torch.zeros(3, 8, 8), 0)


def test_nothing_changes_without_options() -> None:
    torch.testing.assert_close(LineAugmentation()(line(), 7), line(), rtol=0, atol=1e-6)


@given(st.integers(0, 1000))
def test_a_changed_line_depends_on_its_seed_and_is_no_narrower(seed: int) -> None:
    augmentation = LineAugmentation(slant=0.3, shift=0.1, scale=0.2, blur=0.1, noise=0.1, fade=0.5)
    one, again, other = (augmentation(line(), each) for each in (seed, seed, seed + 1))
    assert torch.equal(one, again)
    assert one.shape != other.shape or not torch.equal(one, other)
    assert one.shape[2] >= line().shape[2]
    assert bool(((one >= 0) & (one <= 1)).all())


def test_a_slant_moves_rows_in_proportion_to_their_height() -> None:
    image = torch.ones(1, 31, 61)
    image[:, :, 30] = 0
    slanted = LineAugmentation(slant=1.0)(image, 3)
    width = torch.arange(slanted.shape[2], dtype=torch.float32)
    centers = torch.stack([((1 - row) * width).sum() / (1 - row).sum() for row in slanted[0]])
    steps = centers[1:] - centers[:-1]
    share = torch.rand(6, generator=torch.Generator().manual_seed(3))[0]
    torch.testing.assert_close(steps, (-(2 * share - 1)).expand(30), rtol=0, atol=0.02)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_blur_is_that_of_scipy(share: float) -> None:
    deviation = share * float(torch.rand(6, generator=torch.Generator().manual_seed(5))[3]) * 8 * 0.1
    oracle = gaussian_filter(line()[0].numpy(), deviation, mode="nearest", radius=math.ceil(3 * deviation))
    blurred = LineAugmentation(blur=0.1 * share)(line(), 5)
    torch.testing.assert_close(blurred[0], torch.from_numpy(oracle), rtol=0, atol=1e-5)
