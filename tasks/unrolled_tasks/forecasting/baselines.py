"""Forecasts without a network: the last number, that of a season before, and a linear map of the past."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from unrolled.models.forecasters.segments import last_steps
from unrolled.processing.series.transform import EncodedSeries, SeriesTransform

_MOST_WINDOWS = 20_000  # enough for a linear map of some hundred steps
_RIDGE = 1.0  # in units of one window


def naive(past: Tensor, observed: Tensor, lengths: Tensor, horizon: int) -> Tensor:
    """Returns the last observed number of each target for all steps; see `seasonal_naive`."""
    return seasonal_naive(past, observed, lengths, horizon, season=1)


def seasonal_naive(past: Tensor, observed: Tensor, lengths: Tensor, horizon: int, season: int) -> Tensor:
    """Returns the last observed number at the same place of a season, (batch, horizon, targets).

    If none was observed at that place, it is the last one at any place, and without any it is 0.

    Args:
        past: (batch, time, targets).
        observed: (batch, time, targets) bool, false where a number is missing and in the padding.
        lengths: (batch,) number of steps of the past; the next step is the first predicted one.
        horizon: number of steps.
        season: number of steps of a season.
    """
    places, steps = torch.arange(past.shape[1]), torch.arange(horizon)
    alike = (lengths.view(-1, 1, 1) + steps.view(1, -1, 1) - places) % season == 0  # (batch, horizon, time)
    found: list[Tensor] = []
    for numbers, seen in zip(past.unbind(-1), observed.unbind(-1), strict=True):
        numbered = torch.where(seen, places + 1, 0).unsqueeze(1)  # 0 where missing
        same, last = (numbered * alike).amax(-1), numbered.amax(-1)
        best = torch.where(same > 0, same, last)
        found.append(numbers.gather(1, (best - 1).clamp(min=0)).masked_fill(best == 0, 0.0))
    return torch.stack(found, -1)


class LinearBaseline:
    """The best linear map from the past of a target to the horizon, one for all targets and series.

    It is fitted to the scaled training windows by least squares with a small ridge, in closed form. The last number is
    subtracted from a window and added to its forecast. A decomposition into trend and rest, as DLinear has, is linear,
    too, and would not change the best map.

    Args:
        weight: (context + 1, horizon), the bias last.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    @classmethod
    def fit(cls, series: Iterable[EncodedSeries], transform: SeriesTransform) -> "LinearBaseline":
        """Fits the map to all windows of the training steps, or to evenly spaced ones of many."""
        context, horizon = transform.context, transform.horizon
        size = context + 1
        products = torch.eye(size, dtype=torch.float64) * _RIDGE
        answers = torch.zeros(size, horizon, dtype=torch.float64)
        rows = list(series)
        windows = [(each, origin) for each in rows for origin in range(1, len(each.past) - horizon + 1)]
        chosen = (
            np.linspace(0, len(windows) - 1, min(len(windows), _MOST_WINDOWS)).astype(int).tolist() if windows else []
        )
        for begin in range(0, len(chosen), 512):
            several = [windows[place] for place in chosen[begin : begin + 512]]
            past = [_past(each, origin, context) for each, origin in several]
            inputs, last = _inputs(torch.stack(past))
            wanted = torch.stack([each.targets[o : o + horizon] for each, o in several]).mT
            there = torch.stack([each.observed[o : o + horizon] for each, o in several]).mT
            whole = there.all(-1).flatten()
            x = inputs.flatten(0, 1)[whole].double()
            y = (wanted - last).flatten(0, 1)[whole].double()
            products += x.T @ x
            answers += x.T @ y
        return cls(torch.linalg.solve(products, answers).float())

    def __call__(self, past: Tensor, lengths: Tensor) -> Tensor:
        """Returns forecasts (batch, horizon, targets) of scaled pasts (batch, time, targets)."""
        inputs, last = _inputs(last_steps(past, lengths, len(self.weight) - 1))
        return (inputs @ self.weight + last).mT


def _past(series: EncodedSeries, origin: int, context: int) -> Tensor:
    numbers = series.targets[max(0, origin - context) : origin]
    return torch.nn.functional.pad(numbers, (0, 0, context - len(numbers), 0))


def _inputs(past: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (batch, targets, context + 1) numbers less the last one, and 1; and the last one (batch, targets, 1)."""
    numbers = past.mT
    last = numbers[..., -1:]
    return torch.cat([numbers - last, torch.ones_like(last)], -1), last
