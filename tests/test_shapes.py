"""The shape check: what it lets through, and what it says."""

import pytest
import torch

from unrolled import ShapeError, expect


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3)])
def test_leading_dots_stand_for_any_number_of_axes(shape: tuple[int, ...]) -> None:
    expect(torch.zeros(shape), "... input", input=3)


def test_axes_without_a_size_may_have_any() -> None:
    expect(torch.zeros(0, 7, 3), "batch time input", input=3)


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 4, 3), (2, 4, 5)])
def test_the_error_names_the_tensor_its_shape_and_what_was_expected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as error:
        expect(torch.zeros(shape), "batch time input", input=3, name="frames")

    assert str(error.value) == f"frames has the shape {shape}, expected (batch, time, input=3)"


def test_the_error_shows_open_axes() -> None:
    with pytest.raises(ShapeError, match=r"expected \(\.\.\., input=3\)"):
        expect(torch.zeros(2, 4), "... input", input=3)


def test_a_size_for_an_axis_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"\['inputs'\], but the axes are 'batch input'"):
        expect(torch.zeros(2, 4), "batch input", inputs=4)
