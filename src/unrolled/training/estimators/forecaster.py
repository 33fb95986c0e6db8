"""The estimator of series: it predicts their next steps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.deployment.forecasting import check_levels, forecast_series, forecaster_of
from unrolled.models.forecasters.base import Forecast
from unrolled.processing.series.table import TimeSeries, read_series
from unrolled.training.estimators.base import SequenceEstimator
from unrolled.training.estimators.inputs import as_numbers, as_sequences, is_frame
from unrolled.wording import counted

Floats = NDArray[np.float64]
_MOST_VALIDATED = 0.5  # share of the steps: with a longer horizon, all are for training


class _Given(NamedTuple):
    """Series as rows of tables.

    Attributes:
        tables: for each series its rows, cells by column.
        targets: names of the columns to predict.
        single: whether one series is given, not a list.
        matrix: whether the steps have an axis of targets.
    """

    tables: list[list[dict[str, Any]]]
    targets: list[str]
    single: bool
    matrix: bool


class RecurrentForecaster(SequenceEstimator):
    """Predicts the next steps of series, with quantiles.

    Attributes:
        targets_: names of the numbers that are predicted.
        bundle_, history_, n_iter_, best_epoch_: see `SequenceEstimator`.
    """

    learned: ClassVar[tuple[str, ...]] = (*SequenceEstimator.learned, "targets_")
    kind: ClassVar[str] = "forecaster"

    targets_: list[str]

    def __init__(
        self,
        horizon: int = 12,
        model: str = "lstm",
        *,
        context: int = 48,
        time: str | None = None,
        frequency: str | None = None,
        season: int | None = None,
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.1,
        max_epochs: int = 50,
        batch_size: int | str = "auto",
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        n_iter_no_change: int = 10,
        device: str = "auto",
        n_jobs: int | None = None,
        overrides: Sequence[str] = (),
        trusted: Sequence[str] = (),
        random_state: Any = None,
        verbose: int | bool = False,
    ) -> None:
        """Stores the parameters; `fit` checks them.

        Args:
            horizon: number of steps to predict.
            model: the kind of network; see `RecurrentClassifier`.
            context: maximum number of steps that the network reads.
            time: column of a data frame with dates, times or numbers of steps; None: rows are consecutive steps.
            frequency: time between two steps, such as "1 hour"; None to infer it from the times.
            season: number of steps of a season; None: as usual for the frequency.
            hidden_size: number of units of a layer.
            num_layers: number of layers.
            dropout: dropout probability of the output.
            max_epochs: maximum number of passes over all windows.
            batch_size: windows in a batch; "auto" for 4 to 32.
            learning_rate: greatest learning rate of AdamW.
            weight_decay: decoupled weight decay.
            early_stopping: hold out the last steps of each series for validation; see `RecurrentClassifier`. Without
                enough steps for that, all of them are for training.
            validation_fraction: share of each series' steps for validation, below 0.5; at least the horizon is taken.
            n_iter_no_change: epochs without a lower validation loss before training stops.
            device: see `RecurrentClassifier`.
            n_jobs: number of CPU threads; None for one, -1 for all.
            overrides: further options of the configuration, as on a command line.
            trusted: packages of your own cells that `overrides` names.
            random_state: seed of weights, order and dropout, or a generator.
            verbose: whether to show a progress bar and the result.
        """
        self.horizon = horizon
        self.model = model
        self.context = context
        self.time = time
        self.frequency = frequency
        self.season = season
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.n_jobs = n_jobs
        self.overrides = overrides
        self.trusted = trusted
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains the network.

        Args:
            X: a series (time,) or (time, targets), as an array, tensor, list of numbers or data frame; or a list of
                several.
            y: not used.

        Raises:
            ValueError: series that can't be used, such as those that are shorter than the horizon and one step.
        """
        self._check_counts("horizon", "context")
        given = self._given(X)
        self.targets_ = given.targets
        lengths = [len(rows) for rows in given.tables]
        if min(lengths) <= self.horizon:
            raise ValueError(
                f"horizon={self.horizon} is too long: a series of {counted(min(lengths), 'step')} has at most "
                f"{min(lengths) - 1} to predict after one that is read; lower horizon, or give longer series"
            )
        share = max(self.validation_fraction, (self.horizon + 0.5) / min(lengths))
        rows = [{**row, "name": str(number)} for number, table in enumerate(given.tables) for row in table]
        series = "null" if given.single else "name"
        return self._train(
            {"train": rows},
            sum(length - self.horizon for length in lengths),
            [f"data.target={given.targets}", "data.time=time", f"data.series={series}"],
            validation_fraction=share if share < _MOST_VALIDATED else 0.0,
        )

    def predict(self, X: Any) -> Any:
        """Returns the next steps after each series.

        The only series of a training, and the series that continues it, have the scale of the training; others are
        scaled by their own steps.

        Args:
            X: series as in `fit`, with the same targets. One of `context` steps is enough.

        Returns:
            (horizon,) or (horizon, targets) for a series; a list of them for several.
        """
        return self._forecasts(X, (), "values")

    def predict_quantiles(self, X: Any, levels: Sequence[float] = (0.1, 0.5, 0.9)) -> Any:
        """Returns quantiles of the next steps, with a last axis for the levels; see `predict`.

        Args:
            X: see `predict`.
            levels: probabilities between 0 and 1.

        Raises:
            ValueError: a level outside (0, 1).
        """
        check_is_fitted(self, "bundle_")
        check_levels(forecaster_of(self.bundle_)[0], list(levels))
        return self._forecasts(X, tuple(levels), "quantiles")

    def score(self, X: Any, y: Any = None) -> float:
        """Returns R² of the forecasts of each series' last `horizon` steps from those before.

        Args:
            X: series of more than `horizon` steps, as in `fit`.
            y: not used.
        """
        series = self._series(self._given(X))
        short = next((each for each in series if len(each) <= self.horizon), None)
        if short is not None:
            raise ValueError(f"a series of {counted(len(short), 'step')} is too short to score horizon={self.horizon}")
        found = [self._forecast(each.until(len(each) - self.horizon), ()).values for each in series]
        true = torch.cat([each.values[-self.horizon :] for each in series])
        return float(r2_score(true.numpy(), torch.cat(found).numpy()))

    def _composed(self) -> list[str]:
        return [
            "task=forecasting",
            "data=series_table",
            "data.files=null",
            f"data.horizon={self.horizon}",
            f"data.context={self.context}",
            f"data.season={'null' if self.season is None else self.season}",
            *([] if self.frequency is None else [f"data.frequency='{self.frequency}'"]),
            "data.scoring_batch_size=256",
            f"forecaster.hidden_size={self.hidden_size}",
            f"forecaster.num_layers={self.num_layers}",
            f"forecaster.output_dropout={self.dropout}",
        ]

    def _forecasts(self, X: Any, levels: Sequence[float], part: str) -> Any:
        given = self._given(X)
        found = [getattr(self._forecast(each, levels), part).numpy() for each in self._series(given)]
        found = found if given.matrix else [each[:, 0] for each in found]
        return found[0] if given.single else found

    def _forecast(self, series: TimeSeries, levels: Sequence[float]) -> Forecast:
        network, transform = forecaster_of(self.bundle_)
        generator = torch.Generator(next(network.parameters()).device).manual_seed(0)  # samples, where there are any
        with self._computing():
            return forecast_series(network, transform, series, series.observed, levels=levels, generator=generator)

    def _series(self, given: _Given) -> list[TimeSeries]:
        check_is_fitted(self, "bundle_")
        transform = forecaster_of(self.bundle_)[1]
        columns = replace(transform.columns, series=None)
        if given.targets != list(columns.target):
            raise ValueError(
                f"X has the targets {', '.join(given.targets)}, but {type(self).__name__} was trained on "
                f"{', '.join(columns.target)}"
            )
        found: list[TimeSeries] = []
        for number, table in enumerate(given.tables):
            rows = ((f"X[{number}], row {step}", {**row, columns.time: row["time"]}) for step, row in enumerate(table))
            (series,), _ = read_series(rows, columns, transform.frequency)
            known = given.single and transform.columns.series is None
            # A new name has no scale of training.
            found.append(series if known else replace(series, name=f"new series {number}"))
        return found

    def _given(self, X: Any) -> _Given:
        """Converts series to rows of tables.

        Raises:
            ValueError: no numbers, or NaN.
        """
        if isinstance(X, str | bytes) or X is None:
            raise ValueError(f"X is {X!r:.60}: expected series of numbers")
        single = is_frame(X) or _is_series(X)
        members = [X] if single else list(X)
        if not members:
            raise ValueError("X is empty: give a series, or a list of series")
        read = [self._one(member, "X" if single else f"X[{number}]") for number, member in enumerate(members)]
        targets, matrix = read[0][0], read[0][3]
        other = next((number for number, each in enumerate(read) if each[0] != targets), None)
        if other is not None:
            raise ValueError(f"X[{other}] has the targets {', '.join(read[other][0])}, but X[0] {', '.join(targets)}")
        tables = [
            [{"time": time, **dict(zip(targets, row, strict=True))} for time, row in zip(times, steps, strict=True)]
            for _, times, steps, _ in read
        ]
        return _Given(tables, targets, single, matrix)

    def _one(self, member: Any, name: str) -> tuple[list[str], Sequence[Any], list[list[float]], bool]:
        """Returns the names of the targets of a series, its times, its steps, and whether these have an axis."""
        times: Sequence[Any] | None = None
        columns: list[str] | None = None
        if is_frame(member):
            columns = [str(column) for column in member.columns]
            if self.time is not None:
                if self.time not in columns:
                    raise ValueError(f"{name} has no column {self.time!r}; the columns are {', '.join(columns)}")
                times = [_time(value) for value in member[self.time].to_list()]
                columns.remove(self.time)
                member = member[columns]
        values = as_numbers(member, name)
        matrix = values.ndim == 2
        (steps,) = as_sequences([values], name=name).steps
        names = columns or (["target"] if steps.shape[1] == 1 else [f"target {n}" for n in range(steps.shape[1])])
        return names, range(len(steps)) if times is None else times, steps.tolist(), matrix

    @classmethod
    def _check_bundle(cls, bundle: Bundle) -> None:
        forecaster_of(bundle)

    def _restore(self, learned: Mapping[str, Any]) -> None:
        network, transform = forecaster_of(self.bundle_)
        self.horizon, self.context = network.horizon, transform.context
        self.targets_ = list(transform.columns.target)
        super()._restore(learned)


def _is_series(x: Any) -> bool:
    """Returns whether an object is one series: a list of numbers, or an array with one or two axes."""
    if isinstance(x, list | tuple):
        return bool(x) and isinstance(cast("Sequence[Any]", x)[0], int | float | np.number)
    return not isinstance(x, Tensor | np.ndarray) or x.ndim <= 2


def _time(value: Any) -> Any:
    """Converts a date of a data frame's library to one of Python."""
    return value.to_pydatetime() if hasattr(value, "to_pydatetime") else value
