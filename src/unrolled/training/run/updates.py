"""The number of optimizer steps of a run."""

import math

from lightning.pytorch import Callback, LightningModule, Trainer

from unrolled.training.console.terminal import print_rows
from unrolled.training.data.base import SequenceData
from unrolled.training.tasks.schedules import num_steps, steps_per_epoch
from unrolled.wording import counted

_FEW, _ENOUGH = 300, 1000  # fewer steps leave a network untrained; the second number is enough for a small network


class Updates(Callback):
    """Prints the number of updates before training, and how to increase it if it is small.

    Args:
        data: the training data.
        fresh: training starts from random weights; trained weights may need few updates.
    """

    def __init__(self, data: SequenceData, *, fresh: bool) -> None:
        self.data, self.fresh = data, fresh

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not earlier, since data may prepare their loaders' content in `setup`.
        try:
            steps, each = num_steps(trainer, self.data), steps_per_epoch(trainer, self.data)
        except TypeError:  # a loader without a length
            return
        if each and trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            print_rows(("training", self._describe(trainer, steps, each)))

    def _describe(self, trainer: Trainer, steps: int | float, each: int) -> str:
        if math.isinf(steps):
            return f"{counted(each, 'update')} per epoch, without end"
        if trainer.max_steps != -1:
            return f"{counted(int(steps), 'update')}, {each:,} per epoch"
        text = f"{counted(int(steps), 'update')}, {counted(trainer.max_epochs or 0, 'epoch')} of {each:,}"
        if steps >= _FEW or not self.fresh:
            return text
        more = math.ceil(_ENOUGH / each)
        return f"{text}; too few to learn much: trainer.max_epochs={more} makes {counted(more * each, 'update')}"
