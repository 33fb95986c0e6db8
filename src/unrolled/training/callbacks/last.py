"""Where a run stands, so that it can go on from there."""

import shlex
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint

from unrolled.training.callbacks.interruption import Interruption, agree
from unrolled.training.configuration.quoting import written
from unrolled.training.console.terminal import from_here


class LastCheckpoint(Interruption, Checkpoint):  # Lightning calls a Checkpoint after all other callbacks
    """Writes `last.ckpt`: after validations, every few minutes, at the end of epochs, and when a signal ends a run.

    A run that goes on from there ends as if it had not been interrupted. A kill loses what came since; a signal (see
    `Interruption`) nothing.

    Lightning's own `save_last` follows only when a new best was saved (2.6): a run that was interrupted after a while
    without one would go on from there.

    Args:
        dirpath: folder of the checkpoints.
        minutes: between two writes in training; 0 writes after each step.

    Raises:
        ValueError: less than 0 minutes.
    """

    def __init__(self, dirpath: str | Path, *, minutes: float = 5.0) -> None:
        if not minutes >= 0:
            raise ValueError(f"minutes={minutes}: 0 or more between two writes of last.ckpt")
        super().__init__()
        self.dirpath = dirpath  # as ModelCheckpoint names it: where each process puts its own part
        self.path = Path(dirpath) / "last.ckpt"
        self.minutes = minutes
        self._written = time.monotonic()
        self._step = 0  # at which it was written

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self._written = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step != self._step and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)
        super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        # Not if there is one: by now an average may have taken the weights' place, from which nothing goes on.
        if self._step == 0:
            self._save(trainer)
        super().on_train_end(trainer, pl_module)

    def _complete_step(self, trainer: Trainer, *, validated: bool = False) -> None:
        due = time.monotonic() - self._written >= 60 * self.minutes or trainer.global_step == trainer.max_steps
        number, due, follows = agree(trainer, self._signal, due, not validated and _more_follows(trainer))
        if follows:
            return  # Lightning would go on from here without the validation (2.6); it is written after that
        if number or due or validated:
            self._save(trainer)
        if number:
            self._end(trainer, number)

    def _hint(self) -> str:
        return f"go on with {shlex.quote(f'resume={written(from_here(self.path))}')}"

    def _save(self, trainer: Trainer) -> None:
        if not getattr(trainer, "fast_dev_run", False):
            trainer.save_checkpoint(self.path)
            self._step = trainer.global_step
            self._written = time.monotonic()


def _more_follows(trainer: Trainer) -> bool:
    """Whether a validation or the end of the epoch is next, where last.ckpt is written in any case."""
    loop = trainer.fit_loop.epoch_loop
    validation = loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # pyright: ignore
    return validation or loop.batch_progress.is_last_batch
