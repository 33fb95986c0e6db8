"""Checks that metrics monitored by callbacks and schedules are logged."""

import difflib

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.tasks.schedules import Plateau, Schedule


def check_monitors(trainer: Trainer, schedule: Schedule | None) -> None:
    """Checks that a validation metric is monitored only in a run with validations.

    Raises:
        ConfigurationError: names the monitor and its metric.
    """
    watched = _watched(trainer, schedule)
    for place, monitor in watched.items():
        validates = trainer.limit_val_batches != 0
        if place != "callbacks.checkpoint" and monitor.startswith("validation/") and not validates:
            raise ConfigurationError(
                f"{place} monitors {monitor}, which is never logged: trainer.limit_val_batches="
                f"{trainer.limit_val_batches}; enable validation, or remove {place}"
            )


class MonitorCheck(Callback):
    """Checks after the sanity validation that monitored metrics were logged, so that a misspelt name is found early.

    Args:
        schedule: schedule of the learning rate.
    """

    def __init__(self, schedule: Schedule | None) -> None:
        self.schedule = schedule

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged = [name for name in trainer.callback_metrics if name.startswith("validation/")]
        for place, monitor in _watched(trainer, self.schedule).items():
            if logged and monitor.startswith("validation/") and monitor not in logged:
                near = difflib.get_close_matches(monitor, logged, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ConfigurationError(
                    f"{place} monitors {monitor}, which is not logged{hint}\nLogged: {', '.join(sorted(logged))}"
                )


def _watched(trainer: Trainer, schedule: Schedule | None) -> dict[str, str]:
    """Returns the monitored metric of the schedule and of each callback, by place in the configuration."""
    watched = {"scheduler": schedule.monitor} if isinstance(schedule, Plateau) else {}
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
    for callback in callbacks:
        if isinstance(callback, EarlyStopping):
            watched["callbacks.early_stopping"] = callback.monitor
        elif isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
            watched["callbacks.checkpoint"] = callback.monitor
    return watched
