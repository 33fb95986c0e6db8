"""Pruning: a job of a search ends early if its scores are worse than those of other jobs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningModule, Trainer

from unrolled.training.callbacks.gathering import max_over_ranks

if TYPE_CHECKING:
    import optuna


class Pruning(Callback):
    """Reports the monitored metric to Optuna after each validation, and ends training if Optuna prunes the trial.

    Rank 0 reports and asks; all processes end after the same validation.

    Args:
        open_trial: opens the trial; called on rank 0 alone.
        monitor: name of the metric.
    """

    def __init__(self, open_trial: Callable[[], optuna.Trial], monitor: str) -> None:
        self.open_trial = open_trial
        self.monitor = monitor
        self.pruned = False
        self._trial: optuna.Trial | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._trial = self.open_trial()
        self._ask(trainer)  # a job that was killed after Optuna pruned it

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        value = trainer.callback_metrics.get(self.monitor)
        if self._trial is not None and value is not None and math.isfinite(float(value)):
            with warnings.catch_warnings():  # a resumed job repeats the steps since its checkpoint
                warnings.filterwarnings("ignore", "The reported value is ignored")
                self._trial.report(float(value), trainer.global_step)
        self._ask(trainer)

    def _ask(self, trainer: Trainer) -> None:
        wanted = self._trial is not None and self._trial.should_prune()
        (pruned,) = max_over_ranks(trainer, wanted)
        if pruned and not self.pruned:
            self.pruned = trainer.should_stop = True
            if trainer.is_global_zero:
                print(f"pruned after step {trainer.global_step}: other jobs of the sweep were better", flush=True)


def is_pruned(trainer: Trainer) -> bool:
    """Whether Optuna ended a run."""
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return any(isinstance(callback, Pruning) and callback.pruned for callback in callbacks)
