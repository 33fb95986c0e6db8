"""Conversion of pen strokes to offsets and back."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from unrolled.processing.transform import Transform

Point = tuple[float, float]
Strokes = list[list[Point]]
"""A line of handwriting: strokes, each the points (x, y) that a pen drew until it was lifted; y increases downwards."""


def check_strokes(value: Any) -> Strokes:
    """Check strokes as they are found in a file, and return them with numbers as float.

    Raises:
        ValueError: no strokes, a stroke without points, a point that isn't two finite numbers.
    """
    if not _is_list(value) or len(value) == 0:
        raise ValueError("there are no strokes; expected a list of strokes, each a list of points [x, y]")
    return [_checked_stroke(stroke, number) for number, stroke in enumerate(value, start=1)]


class StrokeTransform(Transform):
    """Converts strokes to the frames that a network reads and predicts (Graves 2013, section 4.1).

    A frame is (dx, dy, end): the offset from the point before, divided by `scale`, and 1 at the last point of a stroke.
    Positions are not kept: the first point becomes the origin, and its offset is 0.

    Args:
        scale: the unit of offsets.

    Raises:
        ValueError: a scale that isn't above 0.
    """

    output_size = 3  # numbers in a frame

    def __init__(self, scale: float = 1.0) -> None:
        if not 0.0 < scale < float("inf"):
            raise ValueError(f"scale is {scale}, expected a number above 0")
        self.scale = float(scale)

    @classmethod
    def fit(cls, lines: Iterable[Strokes]) -> Self:
        """Create a transform whose scale is the root of the mean square of the offsets of some lines.

        Raises:
            ValueError: lines without a second point.
        """
        total, count = 0.0, 0
        for strokes in lines:
            offsets = _offsets(check_strokes(strokes))[1:]
            total, count = total + float(offsets.square().sum()), count + offsets.numel()
        if total == 0.0:
            raise ValueError("the lines have no second point, so that they give no scale")
        return cls((total / count) ** 0.5)

    def encode(self, value: Strokes) -> Tensor:
        """Convert strokes to frames (points, 3).

        Raises:
            ValueError: see `check_strokes`; an offset that is too large for float32.
        """
        strokes = check_strokes(value)
        offsets = (_offsets(strokes) / self.scale).float()
        if not bool(offsets.isfinite().all()):
            raise ValueError("two points are too far apart for float32")
        end = torch.zeros(len(offsets), 1)
        end[torch.tensor([len(stroke) for stroke in strokes]).cumsum(0) - 1] = 1.0
        return torch.cat([offsets, end], dim=1)

    def decode(self, encoded: Tensor, given: Any = None) -> Strokes:
        """Return the strokes of frames (points, 3), in float64; the pen starts at the origin."""
        points = (encoded[:, :2].double().cpu().cumsum(0) * self.scale).tolist()
        strokes: Strokes = [[]]
        for (x, y), end in zip(points, (encoded[:, 2] > 0.5).tolist(), strict=True):
            strokes[-1].append((x, y))
            if end:
                strokes.append([])
        return [stroke for stroke in strokes if stroke]

    def normalize(self, value: Strokes) -> Strokes:
        """Return the strokes, moved so that the first point is the origin."""
        strokes = check_strokes(value)
        left, top = strokes[0][0]
        return [[(x - left, y - top) for x, y in stroke] for stroke in strokes]

    def collate(self, encoded: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(frames) for frames in encoded])
        return torch.nn.utils.rnn.pad_sequence(list(encoded), batch_first=True), lengths

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": "unrolled.StrokeTransform", "scale": self.scale}


def _checked_stroke(stroke: Any, number: int) -> list[Point]:
    if not _is_list(stroke) or len(stroke) == 0:
        raise ValueError(f"stroke {number} has no points; expected a list of points [x, y]")
    points: list[Point] = []
    for place, point in enumerate(stroke, start=1):
        numbers = list(point) if _is_list(point) else []
        if len(numbers) != 2 or not all(isinstance(each, int | float) and abs(each) < float("inf") for each in numbers):
            raise ValueError(f"stroke {number}, point {place} is {point!r:.80}; expected two finite numbers [x, y]")
        points.append((float(numbers[0]), float(numbers[1])))
    return points


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _offsets(strokes: Strokes) -> Tensor:
    """Return the offset of each point from the one before, (points, 2) in float64; 0 for the first."""
    points = torch.tensor([point for stroke in strokes for point in stroke], dtype=torch.float64)
    return points.diff(dim=0, prepend=points[:1])
