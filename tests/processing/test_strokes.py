"""Strokes as offsets and back, and what is refused of them."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled import StrokeTransform, build
from unrolled.processing.strokes import check_strokes

NUMBERS = st.floats(-1e4, 1e4)
LINES = st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5), min_size=1, max_size=4)


@settings(deadline=None, derandomize=True)
@given(strokes=LINES, scale=st.floats(0.01, 100.0))
def test_decoding_restores_what_was_encoded(strokes: Any, scale: float) -> None:
    transform = StrokeTransform(scale)

    frames = transform.encode(strokes)

    found, expected = transform.decode(frames), transform.normalize(strokes)
    assert [len(stroke) for stroke in found] == [len(stroke) for stroke in strokes]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(other), rtol=1e-5, atol=0.05)
    assert frames[:, 2].sum() == len(strokes)
    assert frames.dtype == torch.float32


def test_frames_are_scaled_offsets_and_ends() -> None:
    frames = StrokeTransform(2.0).encode([[(10, 5), (14, 5)], [(20, 11)]])

    assert frames.tolist() == [[0, 0, 0], [2, 0, 1], [3, 3, 1]]


def test_the_scale_is_the_root_mean_square_of_offsets(generator: torch.Generator) -> None:
    points = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    lines = [[points[:10].tolist(), points[10:25].tolist()], [points[25:].tolist()]]

    transform = StrokeTransform.fit(lines)

    offsets = torch.cat([points[:25].diff(dim=0), points[25:].diff(dim=0)])
    assert transform.scale == pytest.approx(float(offsets.square().mean().sqrt()), rel=1e-12)


def test_it_is_plain_data_and_collates() -> None:
    transform = StrokeTransform(3.0)

    again: Any = build(transform.to_dict())
    frames, lengths = again.collate([transform.encode([[(0, 0)] * n]) for n in (3, 1)])

    assert again.scale == 3.0
    assert frames.shape == (2, 3, 3)
    assert lengths.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("strokes", "message"),
    [
        ([], "there are no strokes"),
        ("abc", "there are no strokes"),
        (None, "there are no strokes"),
        ([[(0, 0)], []], "stroke 2 has no points"),
        ([5], "stroke 1 has no points"),
        ([[(0, 0), (1, math.nan)]], r"stroke 1, point 2 is \(1, nan\); expected two finite numbers"),
        ([[(0, math.inf)]], "stroke 1, point 1"),
        ([[(0, 0, 1)]], "stroke 1, point 1"),
        ([[("0", "1")]], "stroke 1, point 1"),
        ([[3, 4]], "stroke 1, point 1 is 3"),
    ],
)
def test_what_is_no_line_is_refused(strokes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_strokes(strokes)


def test_scales_and_distances_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scale is 0.0, expected a number above 0"):
        StrokeTransform(0.0)
    with pytest.raises(ValueError, match="no second point"):
        StrokeTransform.fit([[[(1.0, 1.0)]]])
    with pytest.raises(ValueError, match="too far apart for float32"):
        StrokeTransform(1e-30).encode([[(0.0, 0.0), (1e30, 0.0)]])
