"""Metrics that callbacks and schedules watch: one that is never measured is refused."""

import difflib

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.tasks.schedules import Plateau, Schedule


def check_monitors(trainer: Trainer, schedule: Schedule | None) -> None:
    """Refuses a run without validation in which the training waits for what validations measure.

    Raises:
        ConfigurationError: names what watches which number.
    """
    watched = _watched(trainer, schedule)
    for place, monitor in watched.items():
        validates = trainer.limit_val_batches != 0
        if place != "callbacks.checkpoint" and monitor.startswith("validation/") and not validates:
            raise ConfigurationError(
                f"{place} watches {monitor}, and nothing measures it: trainer.limit_val_batches="
                f"{trainer.limit_val_batches}; validate, or leave {place} out"
            )


class MonitorCheck(Callback):
    """Compares what is watched with what the validation before training logged, so that a typo shows there.

    Args:
        schedule: of the learning rate.
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
                    f"{place} watches {monitor}, which is not measured{hint}\nMeasured: {', '.join(sorted(logged))}"
                )


def _watched(trainer: Trainer, schedule: Schedule | None) -> dict[str, str]:
    """What watches a number, and which."""
    watched = {"scheduler": schedule.monitor} if isinstance(schedule, Plateau) else {}
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
    for callback in callbacks:
        if isinstance(callback, EarlyStopping):
            watched["callbacks.early_stopping"] = callback.monitor
        elif isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
            watched["callbacks.checkpoint"] = callback.monitor
    return watched
