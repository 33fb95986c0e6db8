"""Windows of time series: from tables, a hub set, or the weather of Seattle."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled import Frequency, Processor, SeriesColumns, SeriesTransform, TimeSeries, build_processor
from unrolled.processing.series.table import read_series
from unrolled.processing.series.transform import EncodedSeries
from unrolled.training.configuration.flat import flat_options
from unrolled.training.console.outputs import write_rows
from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.bucketed import BucketData, Examples
from unrolled.training.data.buckets import BatchSpec, Ints
from unrolled.training.data.options import Batching, SourceOptions
from unrolled.training.data.rows import rows_of
from unrolled.training.data.splitting import Split
from unrolled.wording import counted
from unrolled_tasks.forecasting.weather import weather_rows


class ForecastBatch(NamedTuple):
    """A batch of windows."""

    past: Tensor  # (batch, time, features), see `Forecaster`
    lengths: Tensor  # (batch,) number of steps of the past
    future: Tensor  # (batch, horizon, features)
    targets: Tensor  # (batch, horizon, targets) scaled
    mask: Tensor  # (batch, horizon, targets) true where a target is observed
    examples: Tensor  # (batch,) numbers of the windows within their split
    scale: float


class Window(NamedTuple):
    """The number of a series, and the first step that is predicted."""

    series: int
    origin: int


@dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """Windows of a series.

    Attributes:
        context: maximum number of steps that the network reads.
        horizon: number of steps that it predicts.
        stride: steps from one training window to the next.
        scoring_stride: steps from one forecast of a backtest to the next.
        frequency: time between two steps, such as "1 hour"; None to infer it.
        season: number of steps of a season, for the seasonal naive forecast and MASE; None: as usual for the frequency.
        calendar: let the network read the time of day, the day of the week and the day of the year.
        split_steps: numbers of steps of training, validation and test; None: `split_fractions`.

    Raises:
        DataError: a number below one, or other than three splits.
    """

    context: int = 96
    horizon: int = 24
    stride: int = 1
    scoring_stride: int = 1
    frequency: str | None = None
    season: int | None = None
    calendar: bool = True
    split_steps: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("context", "horizon", "stride", "scoring_stride", "season"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name}={value} must be 1 or more")
        steps = self.split_steps
        if steps is not None and (len(steps) != 3 or min(steps) < 0 or sum(steps) < 1):
            raise DataError(f"split_steps={list(steps)}: must be three numbers, for training, validation and test")


class ForecastingData(BucketData[ForecastBatch]):
    """Windows of series, whose last steps are for validation and test.

    Each series is divided by time: its first steps are for training, the next for validation, the last for the test.
    A window belongs to the split that contains all steps that it predicts; it may read steps of earlier splits.

    A series that a given processor does not know is scaled by its training steps or, without any, by those before its
    first forecast.

    Args:
        origin: files or a data set; fields of this and of the other options can be arguments, too.
        columns: the columns.
        windows: the windows.
        weather: use the weather of Seattle, a set that needs no file.
        batching: batches of windows.
        split: fractions of each series' steps.
        processor_from: the processor of a trained network, as its `to_dict` wrote it.

    Raises:
        DataError: no source or several, or invalid options.
    """

    @flat_options
    def __init__(
        self,
        origin: SourceOptions = SourceOptions(),
        columns: SeriesColumns = SeriesColumns(),
        windows: WindowOptions = WindowOptions(),
        weather: bool | None = None,
        batching: Batching = Batching(batch_size=32),
        split: Split = Split(split_fractions=(0.7, 0.1, 0.2)),
        processor_from: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        origin.check_exactly_one("series", weather=weather or None)
        if origin.validation_files is not None or origin.test_files is not None:
            raise DataError(
                "series are divided by time, not by files: give all steps in data.files, and data.split_fractions or "
                "data.split_steps"
            )
        self._origin, self._columns, self._windows, self._weather = origin, columns, windows, bool(weather)
        self.batching, self._split = batching, split
        self._processor = None if processor_from is None else build_processor(processor_from)
        if self._processor is not None:
            self._columns = self._sides(self._processor).columns
        self._series: list[TimeSeries] = []
        self._encoded: list[EncodedSeries] = []
        self._examples: dict[str, list[Window]] = {}

    def prepare(self) -> None:
        """See `SequenceData.prepare`."""
        if self._series:
            return
        given = self._windows.frequency
        if self._processor is not None:
            given = str(self._sides(self._processor).frequency)
        try:
            frequency = None if given is None else Frequency.parse(given)
            series, frequency = read_series(self._rows(), self._columns, frequency)
            train = [each.until(end) for each in series if (end := self._borders(each)[1]) > 0]
            if self._processor is None:
                self._processor = Processor(self._fit(train, frequency))
            transform = self._sides(self._processor)
            self._check_lengths(series, transform.horizon)
            transform = transform.including(each.until(self._before(each, transform)) for each in series)
            self._processor = Processor(transform)
            self._encoded = [transform.encode(each) for each in series]
        except DataError:
            raise
        except ValueError as error:
            raise DataError(str(error)) from None
        self._examples = self._divided(series, transform)
        self._series = series

    def _rows(self) -> Iterator[tuple[str, Mapping[Any, Any]]]:
        if self._weather:
            return weather_rows()
        rows = rows_of(self._origin)
        return ((row.place, row.values) for split in rows.splits for row in rows.read(split))

    def _fit(self, train: Sequence[TimeSeries], frequency: Frequency) -> SeriesTransform:
        windows = self._windows
        return SeriesTransform.fit(
            train,
            self._columns,
            frequency,
            context=windows.context,
            horizon=windows.horizon,
            season=windows.season,
            calendar=windows.calendar,
        )

    def _borders(self, series: TimeSeries) -> list[int]:
        """Returns the first step of each split of a series, and the end of the last one."""
        steps = series.observed
        parts = self._windows.split_steps
        if parts is not None:
            ends = np.cumsum([0, *parts]).tolist()
            if ends[-1] > steps:
                raise DataError(
                    f"{series.place}: {series.title} has {counted(steps, 'step')}, fewer than data.split_steps="
                    f"{list(parts)} together"
                )
            return ends
        found = self._split.last(steps, ())
        sizes = [len(found.get(split, ())) for split in SPLITS]
        return np.cumsum([0, *sizes]).tolist()

    def _before(self, series: TimeSeries, transform: SeriesTransform) -> int:
        """Returns the number of steps of training or, without any, before the first forecast."""
        ends = self._borders(series)[1:]
        return ends[0] or _first(next(end for end in ends if end), transform)

    @staticmethod
    def _check_lengths(series: Sequence[TimeSeries], horizon: int) -> None:
        for each in series:
            if each.observed == 0:
                raise DataError(f"{each.place}: {each.title} is empty: none of its targets is observed")
            if each.observed <= horizon:
                raise DataError(
                    f"{each.place}: {each.title} has {counted(each.observed, 'step')}, but a window needs "
                    f"{counted(horizon, 'step')} to predict and one or more to read; lower data.horizon, or leave the "
                    "series out"
                )

    def _divided(self, series: Sequence[TimeSeries], transform: SeriesTransform) -> dict[str, list[Window]]:
        """Returns the windows of each split, those that predict an observed number alone."""
        horizon, found = transform.horizon, dict[str, list[Window]]()
        wanted: set[str] = set()
        for number, (each, encoded) in enumerate(zip(series, self._encoded, strict=True)):
            borders = self._borders(each)
            before = torch.cat([torch.zeros(1, dtype=torch.int64), encoded.observed.sum(-1).cumsum(0)])
            for split, begin, end in zip(SPLITS, borders, borders[1:], strict=False):
                wanted |= {split} if end > begin else set()
                first = begin or _first(end, transform)
                step = self._windows.stride if split == "train" else self._windows.scoring_stride
                origins = [o for o in range(first, end - horizon + 1, step) if before[o + horizon] > before[o]]
                found.setdefault(split, []).extend(Window(number, origin) for origin in origins)
        for split in SPLITS:
            if split in wanted and not found.get(split):
                most = max(b[SPLITS.index(split) + 1] - b[SPLITS.index(split)] for b in map(self._borders, series))
                raise DataError(
                    f"the longest {split} split has {counted(most, 'step')}, fewer than the "
                    "horizon of "
                    f"{counted(horizon, 'step')} (in training one more); lower data.horizon, or give the split "
                    "more steps: data.split_fractions"
                )
        return {split: found[split] for split in SPLITS if found.get(split)}

    @staticmethod
    def _sides(processor: Processor) -> SeriesTransform:
        if not isinstance(processor.source, SeriesTransform):
            raise DataError("the processor is of another task: forecasting needs series")
        return processor.source

    @property
    def transform(self) -> SeriesTransform:
        """The transform of the series. Call `prepare` first."""
        return self._sides(self.processor())

    def sizes(self) -> dict[str, int]:
        transform = self.transform
        return {
            "past": len(transform.columns.past),
            "future": transform.future_size,
            "targets": transform.num_targets,
            "context": transform.context,
            "horizon": transform.horizon,
        }

    def processor(self) -> Processor:
        if self._processor is None:
            raise RuntimeError("the series are not read yet: call prepare() first")
        return self._processor

    def splits(self) -> Sequence[str]:
        """See `SequenceData.splits`."""
        return tuple(self._examples)

    def describe(self) -> str:
        """See `SequenceData.describe`."""
        counts = ", ".join(f"{split} {len(windows):,}" for split, windows in self._examples.items())
        transform, steps = self.transform, sum(map(len, self._series))
        return (
            f"{counts} windows of {counted(len(self._series), 'series', 'series')} with {steps:,} steps of "
            f"{transform.frequency}; the next {transform.horizon} of "
            f"{', '.join(transform.columns.target)} after {transform.context}; scored: {self.evaluated_split}"
        )

    def fingerprint(self) -> str:
        """See `SequenceData.fingerprint`."""
        digest = hashlib.sha256()
        for each in self._series if "train" in self._examples else ():
            end = self._borders(each)[1]
            digest.update(repr((each.name, str(each.start), each.static)).encode())
            digest.update(each.values[:end].numpy().tobytes())
        return digest.hexdigest() if "train" in self._examples else ""

    def own_files(self) -> str:
        """See `SequenceData.own_files`."""
        return "data=series_table data.files=FILE 'data.split_fractions=[0,0,1]'"

    def example(self, folder: Path) -> str | None:
        """See `SequenceData.example`: a table with the last steps of a series."""
        columns, series = self.transform.columns, self._series[0]
        begin = max(0, series.observed - self.transform.context)
        names = [columns.time, *([columns.series] if columns.series else []), *columns.target, *columns.past]
        names += [*columns.future, *columns.static]
        rows: list[Sequence[Any]] = [names]
        for step in range(begin, len(series.future)):
            numbers = torch.cat([part[step] for part in (series.values, series.past, series.future)]).tolist()
            cells = ["" if number != number else f"{number:.10g}" for number in numbers]
            time = str(self.transform.frequency.after(series.start, step))
            rows.append([time, *([series.name] if columns.series else []), *cells, *series.static])
        write_rows(folder / "example.csv", rows)
        return str(folder / "example.csv")

    def window(self, split: str, example: int) -> tuple[TimeSeries, int]:
        """Returns the series of a window, and the first step that it predicts."""
        window = self._examples[split][example]
        return self._series[window.series], window.origin

    def training_series(self) -> list[tuple[TimeSeries, EncodedSeries]]:
        """Returns the training steps of each series, as they are and encoded; none without a training split."""
        if "train" not in self._examples:
            return []
        ends = [self._borders(each)[1] for each in self._series]
        parts = zip(self._series, self._encoded, ends, strict=True)
        return [
            (each.until(end), EncodedSeries(encoded.past[:end], encoded.future[:end], encoded.observed[:end]))
            for each, encoded, end in parts
            if end
        ]

    def examples(self, split: str, *, scored: bool) -> Examples:
        """See `BucketData.examples`."""
        context, horizon = self.transform.context, self.transform.horizon
        windows = self._examples[split]
        lengths: Ints = np.asarray([[min(context, window.origin)] for window in windows], dtype=np.int64)
        counts = [int(self._encoded[n].observed[o : o + horizon].sum()) for n, o in windows]
        return Examples(lengths, counts)

    def batch(self, split: str, spec: BatchSpec, scale: float, *, scored: bool) -> ForecastBatch:
        """See `BucketData.batch`."""
        windows = [self._examples[split][row] for row in spec.rows]
        return collate_windows(self.transform, [(self._encoded[n], o) for n, o in windows], spec.rows, scale)


def _first(end: int, transform: SeriesTransform) -> int:
    """Returns the first step that is predicted in a split that begins a series: after a whole context, if it fits."""
    return max(1, min(transform.context, end - transform.horizon))


def collate_windows(
    transform: SeriesTransform, windows: Sequence[tuple[EncodedSeries, int]], examples: Any, scale: float
) -> ForecastBatch:
    """Returns a batch of windows: encoded series and the first steps that are predicted."""
    context, horizon = transform.context, transform.horizon
    past = [encoded.past[max(0, origin - context) : origin] for encoded, origin in windows]
    return ForecastBatch(
        pad_sequence(past, batch_first=True),
        torch.tensor([len(steps) for steps in past]),
        torch.stack([encoded.future[origin : origin + horizon] for encoded, origin in windows]),
        torch.stack([encoded.targets[origin : origin + horizon] for encoded, origin in windows]),
        torch.stack([encoded.observed[origin : origin + horizon] for encoded, origin in windows]),
        torch.as_tensor(examples),
        scale,
    )
