"""How many updates a run will make."""

import math

from lightning.pytorch import Callback, LightningModule, Trainer

from unrolled.training.console.terminal import print_rows
from unrolled.training.data.base import SequenceData
from unrolled.training.tasks.base import num_steps, steps_per_epoch
from unrolled.wording import counted

_FEW, _ENOUGH = 300, 1000  # updates that leave a network untrained, and that a small one learns something in


class Updates(Callback):
    """Prints how many updates there will be, and how to have more where they are few.

    Args:
        data: what is trained on.
        fresh: the weights are drawn; those of a trained network may want a few updates only.
    """

    def __init__(self, data: SequenceData, *, fresh: bool) -> None:
        self.data, self.fresh = data, fresh

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Here, since data may make their loaders' content ready in `setup`.
        try:
            steps, each = num_steps(trainer, self.data), steps_per_epoch(trainer, self.data)
        except TypeError:  # a loader without a length
            return
        if each and trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            print_rows(("training", self._said(trainer, steps, each)))

    def _said(self, trainer: Trainer, steps: int | float, each: int) -> str:
        if math.isinf(steps):
            return f"{counted(each, 'update')} an epoch, without end"
        if trainer.max_steps != -1:
            return f"{counted(int(steps), 'update')}, {each:,} an epoch"
        said = f"{counted(int(steps), 'update')}, {counted(trainer.max_epochs or 0, 'epoch')} of {each:,}"
        if steps >= _FEW or not self.fresh:
            return said
        more = math.ceil(_ENOUGH / each)
        return f"{said}; few to learn from: trainer.max_epochs={more} makes {counted(more * each, 'update')}"
