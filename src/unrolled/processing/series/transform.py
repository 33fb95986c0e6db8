"""The transform between a time series and the scaled steps that a forecaster reads and predicts."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.processing.frames import Moments
from unrolled.processing.series.table import SeriesColumns, TimeSeries
from unrolled.processing.series.times import Frequency
from unrolled.processing.transform import Transform


class Scale(NamedTuple):
    """Center and scale of each number: scaled, it is (number − center) / scale."""

    centers: list[float]
    scales: list[float]

    def apply(self, values: Tensor) -> Tensor:
        """Scale numbers (…, numbers) in float64."""
        return (values.double() - values.new_tensor(self.centers).double()) / values.new_tensor(self.scales).double()

    def restore(self, values: Tensor) -> Tensor:
        """Return numbers (…, numbers) in their own units, in float64 on the CPU."""
        centers, scales = (torch.tensor(each, dtype=torch.float64) for each in self)
        return values.cpu().double() * scales + centers


class EncodedSeries(NamedTuple):
    """A series as a forecaster reads it, in float32.

    Attributes:
        past: (time, past features): scaled targets, 0 where missing; 1 where a target is observed, or 0; past
            covariates; known covariates.
        future: (time, future features): covariates that are known of each step, which are the last features of `past`.
        observed: (time, targets) bool.
    """

    past: Tensor
    future: Tensor
    observed: Tensor

    @property
    def targets(self) -> Tensor:
        """(time, targets) scaled, 0 where missing."""
        return self.past[:, : self.observed.shape[1]]


class SeriesTransform(Transform):
    """Scales a time series and adds what is known of each step: a mask of missing numbers, covariates, the calendar.

    Each series is scaled by its own mean and deviation over the training split. A series that training did not contain
    is scaled by those of its given steps; see `including`. Covariates are scaled by their mean and deviation over all
    series.

    Args:
        columns: arguments of `SeriesColumns`.
        frequency: the time between two steps, such as "1 hour".
        context: maximum number of steps that a forecaster reads.
        horizon: number of steps that it predicts.
        season: number of steps of a season.
        calendar: whether the time of day, the day of the week and the day of the year are known covariates.
        scales: centers and scales of the targets by series, two lists each.
        covariates: centers and scales of the past, the future and the numeric static columns, two lists.
        categories: the values of each static column with names; a column that is not here has numbers.

    Raises:
        ValueError: invalid columns or frequency, or a size below one.
    """

    def __init__(
        self,
        columns: Mapping[str, Any],
        frequency: str,
        context: int,
        horizon: int,
        season: int,
        calendar: bool,
        scales: Mapping[str, Sequence[Sequence[float]]],
        covariates: Sequence[Sequence[float]],
        categories: Mapping[str, Sequence[str]],
    ) -> None:
        if min(context, horizon, season) < 1:
            raise ValueError(f"context={context}, horizon={horizon}, season={season}: expected 1 or more")
        self.columns = SeriesColumns(**columns)
        self.frequency = Frequency.parse(frequency)
        self.context, self.horizon, self.season, self.calendar = context, horizon, season, calendar
        self.scales = {name: Scale(list(pair[0]), list(pair[1])) for name, pair in scales.items()}
        self.covariates = Scale(list(covariates[0]), list(covariates[1]))
        self.categories = {name: list(values) for name, values in categories.items()}

    @classmethod
    def fit(
        cls,
        series: Sequence[TimeSeries],
        columns: SeriesColumns,
        frequency: Frequency,
        *,
        context: int,
        horizon: int,
        season: int | None = None,
        calendar: bool = True,
    ) -> Self:
        """Fit scales and categories.

        Args:
            series: the training steps of each series.
            columns: the columns.
            frequency: the time between two steps.
            context: see the class.
            horizon: see the class.
            season: see the class; None for the usual season of the frequency.
            calendar: see the class.

        Raises:
            ValueError: a series without an observed target.
        """
        scales = {each.name: list(_scale_of(each)) for each in series}
        categories: dict[str, list[str]] = {}
        for place, name in enumerate(columns.static):
            found = sorted({each.static[place] for each in series})
            if any(_as_number(value) is None for value in found):
                categories[name] = found
        given = (columns.to_dict(), str(frequency), context, horizon, season or frequency.season, calendar)
        unscaled = cls(*given, scales, ([], []), categories)
        moments = [Moments() for _ in range(unscaled._num_covariates)]
        for each in series:
            for values, moment in zip(unscaled._raw_covariates(each).unbind(-1), moments, strict=True):
                moment.update(values[values.isfinite()].unsqueeze(-1))
        fitted = [moment.result() if moment.has_values else ([0.0], [1.0]) for moment in moments]
        covariates = [[center[0] for center, _ in fitted], [scale[0] for _, scale in fitted]]
        return cls(*given, scales, covariates, categories)

    @property
    def num_targets(self) -> int:
        """Number of targets."""
        return len(self.columns.target)

    @property
    def future_size(self) -> int:
        """Number of features of `EncodedSeries.future`."""
        calendar = self.frequency.calendar_size() if self.calendar else 0
        categories = sum(map(len, self.categories.values()))
        return self._num_covariates - len(self.columns.past) + categories + calendar

    @property
    def past_size(self) -> int:
        """Number of features of `EncodedSeries.past`."""
        return 2 * self.num_targets + len(self.columns.past) + self.future_size

    @property
    def _num_covariates(self) -> int:
        columns = self.columns
        return len(columns.past) + len(columns.future) + len(columns.static) - len(self.categories)

    def scale_of(self, series: TimeSeries) -> Scale:
        """Return the scale of a series: that of training, or of its own steps.

        Raises:
            ValueError: a new series without an observed target.
        """
        return self.scales.get(series.name) or _scale_of(series)

    def including(self, series: Iterable[TimeSeries]) -> Self:
        """Return a transform that scales further series by these steps of theirs, and known series as before.

        Raises:
            ValueError: a new series without an observed target.
        """
        found = copy(self)
        found.scales = self.scales | {each.name: _scale_of(each) for each in series if each.name not in self.scales}
        return found

    def encode(self, value: TimeSeries) -> EncodedSeries:
        """Scale a series. Its future columns may have more steps than its targets.

        Raises:
            ValueError: see `scale_of`.
        """
        targets = self.scale_of(value).apply(value.values)
        observed = targets.isfinite()
        covariates = self.covariates.apply(self._raw_covariates(value)).nan_to_num(0.0)
        past, known = covariates.split([len(self.columns.past), self._num_covariates - len(self.columns.past)], -1)
        steps = len(covariates)
        parts = [known]
        for column, names in self.categories.items():
            own = value.static[self.columns.static.index(column)]
            parts.append(torch.tensor([[float(own == name) for name in names]]).double().expand(steps, -1))
        if self.calendar:
            times = (self.frequency.after(value.start, step) for step in range(steps))
            rows = [self.frequency.calendar_of(time) for time in times]
            parts.append(torch.tensor(rows, dtype=torch.float64).view(steps, -1))
        future = torch.cat(parts, -1)
        steps = len(targets)
        past = torch.cat([targets.nan_to_num(0.0), observed.double(), past[:steps], future[:steps]], -1)
        return EncodedSeries(past.float(), future.float(), observed)

    def decode(self, encoded: Any, given: Any = None) -> Tensor:
        """Return numbers (…, targets) in their own units, of scaled ones.

        Args:
            encoded: (…, targets) scaled numbers, or an `EncodedSeries`.
            given: the `TimeSeries`, which has the scale.
        """
        scale = self.scale_of(given)
        if isinstance(encoded, EncodedSeries):
            return scale.restore(encoded.targets).masked_fill(~encoded.observed, torch.nan)
        return scale.restore(encoded)

    def normalize(self, value: TimeSeries) -> Tensor:
        """Return the numbers of a series."""
        return value.values

    def collate(self, encoded: Sequence[EncodedSeries]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(each.past) for each in encoded])
        return pad_sequence([each.past for each in encoded], batch_first=True), lengths

    def to_dict(self) -> dict[str, Any]:
        return {
            "_target_": "unrolled.SeriesTransform",
            "columns": self.columns.to_dict(),
            "frequency": str(self.frequency),
            "context": self.context,
            "horizon": self.horizon,
            "season": self.season,
            "calendar": self.calendar,
            "scales": {name: [scale.centers, scale.scales] for name, scale in self.scales.items()},
            "covariates": [self.covariates.centers, self.covariates.scales],
            "categories": dict(self.categories),
        }

    def _raw_covariates(self, series: TimeSeries) -> Tensor:
        """Return past, future and numeric static columns (time, covariates), NaN where they are unknown."""
        steps = len(series.future)
        past = torch.full((steps, len(self.columns.past)), torch.nan, dtype=torch.float64)
        past[: len(series.past)] = series.past
        numeric = [
            cell for name, cell in zip(self.columns.static, series.static, strict=True) if name not in self.categories
        ]
        numbers = [torch.nan if (number := _as_number(cell)) is None else number for cell in numeric]
        static = torch.tensor(numbers, dtype=torch.float64).expand(steps, len(numbers))
        return torch.cat([past, series.future, static], -1)


def _scale_of(series: TimeSeries) -> Scale:
    """Return mean and deviation of each target over its observed steps.

    Raises:
        ValueError: a target without an observed step.
    """
    centers: list[float] = []
    scales: list[float] = []
    for place, values in enumerate(series.values.unbind(-1)):
        moments = Moments()
        moments.update(values[values.isfinite()].unsqueeze(-1))
        if not moments.has_values:
            raise ValueError(
                f"{series.place}: {series.title} has no observed number in target {place + 1} to scale it by; "
                "leave the series out, or give it more steps for training"
            )
        center, scale = moments.result()
        centers += center
        scales += scale
    return Scale(centers, scales)


def _as_number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
