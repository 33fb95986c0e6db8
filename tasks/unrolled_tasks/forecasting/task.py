"""Forecasting: the next steps of time series, beside naive, seasonal naive and linear forecasts."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from unrolled import Forecaster, Processor, SeriesTransform
from unrolled.deployment.forecasting import Fan, check_levels, forecast_series
from unrolled.losses import Loss
from unrolled.sequences import mask_from_lengths
from unrolled.training.configuration.flat import flat_options
from unrolled.training.console.forecasts import draw_fans, draw_horizon
from unrolled.training.console.outputs import save_figure, write_rows
from unrolled.training.console.terminal import quoted_path
from unrolled.training.tasks.base import SequenceTask
from unrolled.training.tasks.evaluation import Scored
from unrolled.training.tasks.optimization import Optimization
from unrolled_tasks.forecasting import metrics
from unrolled_tasks.forecasting.baselines import LinearBaseline, naive, seasonal_naive
from unrolled_tasks.forecasting.data import ForecastBatch, ForecastingData

LEVELS = tuple(round(0.05 * place, 2) for place in range(1, 20))
BASELINES = ("naive", "seasonal_naive", "linear")
_STEP = "step/"  # prefix of sums of single steps of the horizon, which are drawn and not logged


class Backtest(NamedTuple):
    """The errors of a window."""

    example: int
    series: str
    origin: str
    mae: float
    scaled_mae: float


class Forecasting(SequenceTask):
    """Trains a network to predict the next steps of series.

    Args:
        network: see `SequenceTask`; a `Forecaster`.
        processor: see `SequenceTask`.
        optimization: see `SequenceTask`.
        levels: evenly spaced probabilities of the quantiles that the test scores: CRPS, pinball loss, intervals.
        interval: probability of the interval whose coverage the test reports; both its ends are levels.
        num_samples: number of sampled continuations of an autoregressive network.

    Raises:
        ValueError: an interval whose ends are not among the levels.
    """

    network: Forecaster  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, never another
    files: ClassVar[Mapping[str, str]] = {
        "backtest.csv": "a line for each forecast of the test: series, first time, mean absolute errors",
        "forecasts.png": "forecasts of the test with their intervals, and those with the greatest errors",
        "horizon.png": "error of each step of the horizon, beside the baselines",
    }
    progress_metrics = ("scaled_mae",)

    @flat_options
    def __init__(
        self,
        network: Mapping[str, Any],
        processor: Processor,
        optimization: Optimization = Optimization(),
        levels: Sequence[float] = LEVELS,
        interval: float = 0.8,
        num_samples: int = 100,
    ) -> None:
        super().__init__(network=network, processor=processor, optimization=optimization)
        self.levels, self.interval, self.num_samples = [float(level) for level in levels], interval, num_samples
        self._ends = [self._level(0.5 - interval / 2), self._level(0.5 + interval / 2)]
        self._linear: LinearBaseline | None = None
        self._mase: dict[str, Tensor] = {}
        self._by_step: dict[str, list[float]] = {}

    def _level(self, wanted: float) -> int:
        """Returns the place of a level."""
        for place, level in enumerate(self.levels):
            if math.isclose(level, wanted, abs_tol=1e-9):
                return place
        raise ValueError(
            f"interval={self.interval} begins or ends at the quantile {wanted:g}, which is not one of "
            f"levels={self.levels}"
        )

    @property
    def transform(self) -> SeriesTransform:
        """The transform of the series."""
        if not isinstance(self.processor.source, SeriesTransform):
            raise ValueError("forecasting needs a SeriesTransform, and this processor is of another task")
        return self.processor.source

    @property
    def _has_intervals(self) -> bool:
        """Whether the network predicts all levels: not the mean, nor the median alone."""
        try:
            check_levels(self.network, self.levels)
        except ValueError:
            return False
        return True

    def loss(self, batch: ForecastBatch, loader: str) -> Loss:
        """Returns the summed loss of the observed numbers of the horizon."""
        return self.network.loss(batch.past, batch.future, batch.targets, batch.mask, batch.lengths)

    def training_step(self, batch: ForecastBatch, batch_idx: int) -> Tensor:
        """Returns the batch's share of the optimizer step's mean loss."""
        loss = self.loss(batch, "train")
        self.log_step("train/loss", loss.mean.detach(), prog_bar=True, batch_size=len(batch.lengths))
        return loss.total * batch.scale + self.penalty()

    def on_test_start(self) -> None:
        """Fits the linear baseline and the scales of MASE to the training split."""
        super().on_test_start()
        if isinstance(self.data, ForecastingData):
            training = self.data.training_series()
            season = self.transform.season
            self._mase = {each.name: metrics.seasonal_scale(each.values, season) for each, _ in training}
            self._linear = (
                LinearBaseline.fit((encoded for _, encoded in training), self.transform) if training else None
            )

    def score(self, batch: ForecastBatch, loader: str) -> Scored:
        """Returns the errors of the forecasts and, in a test, those of the baselines."""
        sums: dict[str, tuple[Tensor | float, Tensor | float]] = {"loss": self.loss(batch, loader)}
        testing = loader == "test"
        levels = self.levels if testing and self._has_intervals else ()
        generator = torch.Generator(batch.past.device).manual_seed(int(batch.examples[0]))
        found = self.network.forecast(
            batch.past, batch.future, batch.lengths, levels=levels, num_samples=self.num_samples, generator=generator
        )
        batch = ForecastBatch._make(each.cpu() if isinstance(each, Tensor) else each for each in batch)
        mask, scaled = batch.mask, found.values.cpu().double()
        count = mask.sum()

        def add(name: str, errors: Tensor) -> None:
            sums[name] = errors.masked_fill(~mask, 0.0).sum(), count

        targets = batch.targets.double()
        add("scaled_mae", (targets - scaled).abs())
        add("scaled_mse", (targets - scaled).square())
        if not testing or not isinstance(self.data, ForecastingData):
            return Scored(sums)
        windows = [self.data.window(self.data.evaluated_split, n) for n in batch.examples.tolist()]
        scales = [self.transform.scale_of(series) for series, _ in windows]
        center, scale = (torch.tensor([each[n] for each in scales], dtype=torch.float64).unsqueeze(1) for n in (0, 1))
        wanted = targets * scale + center
        values = {"": scaled, **self._baselines(batch)}
        mase = torch.stack(
            [
                self._mase.get(s.name, torch.full((len(c[0]),), torch.nan))
                for (s, _), c in zip(windows, scales, strict=True)
            ]
        )
        for name, forecast in values.items():
            prefix = f"{name}/" if name else ""
            errors = (wanted - (forecast.double() * scale + center)).abs()
            add(f"{prefix}mae", errors)
            add(f"{prefix}mse", errors.square())
            add(f"{prefix}smape", metrics.symmetric_error(forecast.double() * scale + center, wanted))
            known = mask & mase.isfinite().unsqueeze(1)
            sums[f"{prefix}mase"] = (errors / mase.unsqueeze(1)).masked_fill(~known, 0.0).sum(), known.sum()
            if name:
                add(f"{prefix}scaled_mae", (targets - forecast).abs())
                add(f"{prefix}scaled_mse", (targets - forecast).square())
            by_step = (targets - forecast).abs().masked_fill(~mask, 0.0).sum((0, 2)), mask.sum((0, 2))
            sums |= {f"{_STEP}{prefix}{step}": pair for step, pair in enumerate(zip(*by_step, strict=True))}
        if levels:
            quantiles = found.quantiles.cpu().double() * scale.unsqueeze(-1) + center.unsqueeze(-1)
            add("pinball", metrics.pinball(quantiles, wanted, levels).mean(-1))
            add("crps", metrics.continuous_ranked_probability(quantiles, wanted, levels))
            lower, upper = (quantiles[..., place] for place in self._ends)
            add("coverage", metrics.covered(lower, upper, wanted))
            add("interval_width", upper - lower)
        return Scored(sums, self._rows(batch, windows, scaled, wanted, scale, center))

    def _baselines(self, batch: ForecastBatch) -> dict[str, Tensor]:
        """Returns the scaled forecasts of the baselines; the linear one needs a training split."""
        count, horizon = self.transform.num_targets, self.transform.horizon
        past = batch.past[..., :count]
        valid = mask_from_lengths(batch.lengths, past.shape[1]).unsqueeze(-1)
        observed = (batch.past[..., count : 2 * count] > 0) & valid
        found = {
            "naive": naive(past, observed, batch.lengths, horizon),
            "seasonal_naive": seasonal_naive(past, observed, batch.lengths, horizon, self.transform.season),
        }
        return found if self._linear is None else {**found, "linear": self._linear(past, batch.lengths)}

    def _rows(
        self,
        batch: ForecastBatch,
        windows: Sequence[Any],
        scaled: Tensor,
        wanted: Tensor,
        scale: Tensor,
        center: Tensor,
    ) -> list[Backtest]:
        count = batch.mask.sum((1, 2)).clamp(min=1)
        errors = (batch.targets.double() - scaled).abs().masked_fill(~batch.mask, 0.0)
        own = ((errors * scale).sum((1, 2)) / count).tolist()
        means = (errors.sum((1, 2)) / count).tolist()
        return [
            Backtest(example, series.name, str(self.transform.frequency.after(series.start, origin)), mae, scaled_mae)
            for example, (series, origin), mae, scaled_mae in zip(
                batch.examples.tolist(), windows, own, means, strict=True
            )
        ]

    def scores(self, means: Mapping[str, float], rows: Sequence[Backtest]) -> dict[str, float]:
        """Returns the means, the root of squared errors, and keeps the errors of single steps for the report."""
        found = {name: value for name, value in means.items() if not name.startswith(_STEP)}
        for name in ("", *(f"{each}/" for each in BASELINES)):
            if f"{name}mse" in found:
                found[f"{name}rmse"] = math.sqrt(found[f"{name}mse"])
        if rows:
            names = [
                name for name in ("", *BASELINES) if f"{_STEP}{name}/0" in means or (not name and f"{_STEP}0" in means)
            ]
            self._by_step = {
                name: [
                    means[f"{_STEP}{name}/{step}" if name else f"{_STEP}{step}"] for step in range(self.network.horizon)
                ]
                for name in names
            }
        return {name: value for name, value in found.items() if not name.endswith("mase") or not math.isnan(value)}

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Returns a command that forecasts."""
        table = self.example()
        if table is None:
            return ()
        quantiles = " --quantiles 0.1 0.5 0.9" if self._has_intervals else ""
        return (f"python -m unrolled forecast {checkpoint} {quoted_path(table)}{quantiles}",)

    def report(self, rows: Sequence[Backtest], folder: Path) -> None:
        """Writes backtest.csv, forecasts.png and horizon.png."""
        write_rows(folder / "backtest.csv", [Backtest._fields[1:], *(row[1:] for row in rows)])
        save_figure(folder / "horizon.png", draw_horizon(self._by_step), dpi=110)
        if not isinstance(self.data, ForecastingData):
            return
        middle = [rows[len(rows) * place // 4] for place in (1, 2, 3)]
        windows = [self.data.window(self.data.evaluated_split, row.example) for row in rows]
        places = [(series.name, origin) for series, origin in windows]
        worst = metrics.greatest([row.scaled_mae for row in rows], places, 3, self.network.horizon)
        shown = [("", row) for row in middle] + [("greatest errors: ", rows[place]) for place in worst]
        fans = [self._fan(self.data, row, title) for title, row in shown]
        save_figure(folder / "forecasts.png", draw_fans(fans), dpi=110)

    def _fan(self, data: ForecastingData, row: Backtest, title: str) -> Fan:
        """Forecasts the first target of a window again."""
        series, origin = data.window(data.evaluated_split, row.example)
        levels = self.levels if self._has_intervals else ()
        found = forecast_series(
            self.network, self.transform, series, origin, levels=levels, num_samples=self.num_samples
        )
        begin, end = max(0, origin - 3 * self.network.horizon), origin + self.network.horizon
        quantiles = {level: found.quantiles[:, 0, place].tolist() for place, level in enumerate(levels)}
        return Fan(
            title=f"{title}{f'{series.name}, ' if series.name else ''}{row.origin.removesuffix(' 00:00:00')}",
            name=self.transform.columns.target[0],
            times=[self.transform.frequency.after(series.start, step) for step in range(begin, end)],
            values=series.values[begin:end, 0].tolist(),
            forecast=found.values[:, 0].tolist(),
            quantiles=quantiles,
        )

    def sample(self, generator: torch.Generator) -> str:
        """Returns the first forecast of the validation split beside the truth."""
        if not isinstance(self.data, ForecastingData) or "validation" not in self.data.splits():
            return ""
        series, origin = self.data.window("validation", 0)
        found = forecast_series(self.network, self.transform, series, origin)
        end = min(len(series), origin + self.network.horizon)
        pairs = zip(series.values[origin:end, 0].tolist(), found.values[:, 0].tolist(), strict=False)
        time = self.transform.frequency.after(series.start, origin)
        numbers = "  ".join(f"{true:.4g}/{forecast:.4g}" for true, forecast in list(pairs)[:12])
        return f"{self.transform.columns.target[0]} from {time}, true/forecast: {numbers}"
