"""Evaluation of a task on a split: sums and rows of batches become metrics, equal on any number of processes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lightning.pytorch import Trainer
from torch import Tensor

from unrolled.training.callbacks.gathering import gather_from_all_ranks

Row = tuple[Any, ...]


class Scored(NamedTuple):
    """What a task computed of one batch.

    Attributes:
        sums: a total and the number of its terms, by name. Scalars, on any device.
        rows: plain data of single examples, only where a corpus metric or a report needs them. Each is a tuple (or a
            NamedTuple) that begins with the number of the example within its split.
    """

    sums: Mapping[str, tuple[Tensor | float, Tensor | float]]
    rows: Sequence[Row] = ()


class _Task(Protocol):
    @property
    def trainer(self) -> Trainer: ...
    @property
    def progress_metrics(self) -> Sequence[str]: ...
    def scores(self, means: Mapping[str, float], rows: Sequence[Any]) -> dict[str, float]: ...
    def report(self, rows: Sequence[Any], folder: Path) -> None: ...
    def log(self, name: str, value: float, *, prog_bar: bool) -> None: ...


class Evaluation:
    """Adds up what a task computes of the batches of a split, over all processes, and logs the metrics.

    Sums are added in float64. Rows are gathered as they are, and each example counts once, so that a task may compute
    metrics of a whole corpus.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor | float, Tensor | float]] = {}
        self._rows: list[Row] = []

    @property
    def rows(self) -> list[Row]:
        """The rows of this process since `reset`, in the order of the examples."""
        return _in_order(self._rows)

    def reset(self) -> None:
        """Drops all sums and rows."""
        self._sums, self._rows = {}, []

    def add(self, scored: Scored) -> None:
        """Adds a batch, without waiting for the device."""
        for name, (total, count) in scored.sums.items():
            totals, counts = self._sums.get(name, (0.0, 0))
            self._sums[name] = totals + _exact(total), counts + _exact(count)
        self._rows.extend(scored.rows)

    def gather(self) -> tuple[dict[str, float], list[Row]]:
        """Returns the mean of each sum and the rows of all processes, the same on each; resets this evaluation.

        A name may be missing on some processes. A mean over nothing is NaN.
        """
        own = {name: (float(total), float(count)) for name, (total, count) in self._sums.items()}
        sums: dict[str, tuple[float, float]] = {}
        rows: list[Row] = []
        for of_rank, rows_of_rank in gather_from_all_ranks([(own, self._rows)]):
            for name, (total, count) in of_rank.items():
                totals, counts = sums.get(name, (0.0, 0.0))
                sums[name] = totals + total, counts + count
            rows += rows_of_rank
        self.reset()
        means = {name: total / count if count else math.nan for name, (total, count) in sums.items()}
        return means, _in_order(rows)

    def finish(self, task: _Task, split: str) -> None:
        """Logs the task's metrics as `{split}/{name}`; after a test, the first process writes the task's report.

        Every process computes all metrics, which are therefore equal and need no synchronization. In a validation, the
        progress bar shows the task's `progress_metrics` and the metric that selects the best checkpoint. It does not
        show the loss for that, next to the training loss.
        """
        means, rows = self.gather()
        trainer = task.trainer
        monitor = getattr(trainer.checkpoint_callback, "monitor", None)
        for name, value in task.scores(means, rows).items():
            monitored = name != "loss" and monitor == f"{split}/{name}"
            shown = split == "validation" and (monitored or name in task.progress_metrics)
            task.log(f"{split}/{name}", value, prog_bar=shown)
        if split == "test" and rows and trainer.is_global_zero:
            task.report(rows, Path(trainer.default_root_dir))


def perplexity(nats: float) -> float:
    """Returns exp(nats), infinite where a double would overflow."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def _exact(value: Tensor | float) -> Tensor | float:
    """Returns a value to which others can be added without loss: float64, or an integer."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach()
    value = value.cpu() if value.device.type == "mps" else value  # MPS has no float64
    return value.double() if value.is_floating_point() else value


def _in_order(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows by example, each example once."""
    return [row for _, row in sorted({row[0]: row for row in reversed(rows)}.items())]
