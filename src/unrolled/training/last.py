"""Where a run stands, so that it can go on from there."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` after every validation, better or not, and at the end of epochs and runs without one.

    Lightning's own `save_last` follows only when a new best was saved (2.6): a run that was interrupted after a while
    without one would go on from there.

    Args:
        dirpath: folder of the checkpoints.
    """

    def __init__(self, dirpath: str | Path) -> None:
        self.dirpath = dirpath  # as ModelCheckpoint names it: where each process puts its own part
        self.path = Path(dirpath) / "last.ckpt"
        self._step = 0  # at which it was written

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Within an epoch it has to be now: Lightning would not go on there from what is written when the epoch is left.
        if trainer.global_step == trainer.max_steps != self._step:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self._step and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not if there is one: by now an average may have taken the weights' place, from which nothing goes on.
        if self._step == 0:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if not getattr(trainer, "fast_dev_run", False):
            trainer.save_checkpoint(self.path)
            self._step = trainer.global_step
