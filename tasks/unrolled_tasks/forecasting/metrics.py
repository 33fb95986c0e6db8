"""Errors of forecasts, entry by entry, without a mean; and which windows have the greatest."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def symmetric_error(values: Tensor, targets: Tensor) -> Tensor:
    """Returns 200 |y − ŷ| / (|y| + |ŷ|) in percent (Makridakis 1993), 0 where both are 0."""
    distance = (targets - values).abs()
    return 200.0 * distance / (targets.abs() + values.abs()).clamp(min=torch.finfo(values.dtype).tiny)


def pinball(quantiles: Tensor, targets: Tensor, levels: Sequence[float]) -> Tensor:
    """Returns the pinball loss of each quantile (…, levels) for targets (…)."""
    errors = targets.unsqueeze(-1) - quantiles
    shares = errors.new_tensor(levels)
    return torch.maximum(shares * errors, (shares - 1) * errors)


def continuous_ranked_probability(quantiles: Tensor, targets: Tensor, levels: Sequence[float]) -> Tensor:
    """Returns twice the mean pinball loss over evenly spaced levels (…), which tends to the CRPS with more levels.

    Gneiting & Ranjan 2011, "Comparing Density Forecasts", eq. 7: CRPS = 2 ∫ pinball(α) dα.
    """
    return 2.0 * pinball(quantiles, targets, levels).mean(-1)


def covered(lower: Tensor, upper: Tensor, targets: Tensor) -> Tensor:
    """Returns 1.0 for targets from `lower` to `upper`, or else 0.0."""
    return ((targets >= lower) & (targets <= upper)).to(lower.dtype)


def seasonal_scale(values: Tensor, season: int) -> Tensor:
    """Returns the mean absolute difference (targets,) to the step one season before, over observed pairs.

    It is what MASE divides by (Hyndman & Koehler 2006). NaN without a pair, or if nothing differs.

    Args:
        values: (time, targets) the training steps of a series, NaN where missing.
        season: number of steps of a season.
    """
    differences = (values[season:] - values[:-season]).abs()
    means = differences.nanmean(0)
    return torch.where(means > 0, means, torch.nan)


def greatest(errors: Sequence[float], windows: Sequence[tuple[str, int]], count: int, horizon: int) -> list[int]:
    """Returns which windows have the greatest errors, without those that overlap a greater one.

    Args:
        errors: error of each window.
        windows: series of each window, and the first step that it predicts.
        count: number of windows; all of different series, if there are so many.
        horizon: number of steps that a window predicts.
    """
    gap = math.inf if len({series for series, _ in windows}) >= count else horizon
    found: list[int] = []
    for place in sorted(range(len(errors)), key=lambda place: -errors[place]):
        series, origin = windows[place]
        others = [windows[other][1] for other in found if windows[other][0] == series]
        if all(abs(origin - other) >= gap for other in others):
            found.append(place)
    return found[:count]
