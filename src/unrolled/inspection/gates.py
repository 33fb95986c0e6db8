"""What gates do over time: how long a cell remembers, and how often a gate is closed or open."""

from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.shapes import expect


def time_constants(forget: Tensor) -> Tensor:
    """Compute τ = −1 / ln f̄, the number of steps after which a unit keeps 1/e of what it held.

    f̄ is the mean of the forget gate over all valid steps. A unit that keeps the share f at each step decays like
    f^t = exp(−t/τ) (Tallec & Ollivier 2018, "Can recurrent neural networks warp time?", section 1). For a GRU, pass the
    update gate z, the share of h that is kept.

    Args:
        forget: (batch, time, units), from 0 to 1, NaN in the padding, as in `CellRecord`.

    Returns:
        (units,) in steps: 0 for a gate that is always closed, infinity for one that is always open.

    Raises:
        ShapeError: another shape.
        ValueError: values outside [0, 1], or no valid step.
    """
    mean = _checked(forget, 0.0, 1.0).nanmean((0, 1)).clamp(0.0, 1.0)
    return 1.0 / mean.log().abs()


class Saturation(NamedTuple):
    """The share of steps, from 0 to 1, at which each unit is saturated; (units,) each."""

    low: Tensor
    high: Tensor


def saturation(values: Tensor, *, low: float = 0.0, high: float = 1.0, margin: float = 0.1) -> Saturation:
    """Compute how often each unit of a gate is near its bounds.

    A gate is left-saturated below 0.1 and right-saturated above 0.9 (Karpathy, Johnson & Fei-Fei 2015, "Visualizing and
    Understanding Recurrent Networks", section 4.2). A unit that is always left-saturated in the forget gate is
    feed-forward, one that is always right-saturated never forgets.

    Args:
        values: (batch, time, units), NaN in the padding.
        low: the lower bound: 0 for a gate, −1 for a candidate tanh.
        high: the upper bound.
        margin: the share of the range at either bound that counts as saturated, above 0 and below 0.5.

    Raises:
        ShapeError: another shape.
        ValueError: a margin out of range, values out of bounds, no valid step.
    """
    if not 0.0 < margin < 0.5:
        raise ValueError(f"margin is {margin}, expected a share above 0 and below 0.5")
    checked, width = _checked(values, low, high), margin * (high - low)
    number = checked.isfinite().sum((0, 1))
    return Saturation((checked < low + width).sum((0, 1)) / number, (checked > high - width).sum((0, 1)) / number)


def _checked(values: Tensor, low: float, high: float) -> Tensor:
    expect(values, "batch time units", name="values")
    known = values[values.isfinite()]
    if len(known) == 0:
        raise ValueError("no valid step: all values are NaN or infinite")
    least, most = (float(extreme) for extreme in known.aminmax())
    if least < low - 1e-6 or most > high + 1e-6:
        raise ValueError(f"values go from {least:.4g} to {most:.4g}, expected {low:g} to {high:g}")
    return torch.where(values.isfinite(), values, torch.nan)
