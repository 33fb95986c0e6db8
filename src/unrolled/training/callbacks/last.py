"""The latest checkpoint, from which a run can be resumed."""

import shlex
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint

from unrolled.training.callbacks.gathering import max_over_ranks
from unrolled.training.callbacks.interruption import Interruption
from unrolled.training.configuration.quoting import quote_value
from unrolled.training.console.terminal import relative_path


class LastCheckpoint(Interruption, Checkpoint):  # Lightning calls a Checkpoint after all other callbacks
    """Saves `last.ckpt` after validations, every few minutes, at the end of epochs, and when a signal ends a run.

    A run resumed from it gives the same result as an uninterrupted run. A killed process loses the steps since the last
    save. A signal (see `Interruption`) loses nothing.

    Lightning's own `save_last` saves only together with a new best checkpoint (2.6), so that a resumed run would repeat
    all steps since then.

    Args:
        dirpath: folder of the checkpoints.
        minutes: minimum time between two saves during training; 0 saves after each step.

    Raises:
        ValueError: less than 0 minutes.
    """

    def __init__(self, dirpath: str | Path, *, minutes: float = 5.0) -> None:
        if not minutes >= 0:
            raise ValueError(f"minutes={minutes}: the time between two saves of last.ckpt must be 0 or more")
        super().__init__()
        self.dirpath = dirpath  # named as in ModelCheckpoint: the folder for the files of each rank
        self.path = Path(dirpath) / "last.ckpt"
        self.minutes = minutes
        self._saved_at = time.monotonic()
        self._saved_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self._saved_at = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step != self._saved_step and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)
        super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        # Only if there is none: WeightAveraging may have replaced the weights by their average before this call.
        if self._saved_step == 0:
            self._save(trainer)
        super().on_train_end(trainer, pl_module)

    def _complete_step(self, trainer: Trainer, *, validated: bool = False) -> None:
        due = time.monotonic() - self._saved_at >= 60 * self.minutes or trainer.global_step == trainer.max_steps
        number, due, follows = max_over_ranks(trainer, self._signal, due, not validated and _saves_later(trainer))
        if follows:
            return  # Lightning would resume from here without the validation (2.6); it is saved after the validation
        if number or due or validated:
            self._save(trainer)
        if number:
            self._stop(trainer, number)

    def _resume_hint(self) -> str:
        return f"resume with {shlex.quote(f'resume={quote_value(relative_path(self.path))}')}"

    def _save(self, trainer: Trainer) -> None:
        if not getattr(trainer, "fast_dev_run", False):
            trainer.save_checkpoint(self.path)
            self._saved_step = trainer.global_step
            self._saved_at = time.monotonic()


def _saves_later(trainer: Trainer) -> bool:
    """Whether a validation or the end of the epoch comes next, after which last.ckpt is saved in any case."""
    loop = trainer.fit_loop.epoch_loop
    validation = loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # pyright: ignore
    return validation or loop.batch_progress.is_last_batch
