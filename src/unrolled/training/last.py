"""Where a run stands, so that it can go on from there."""

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` after every validation, better or not, and at the end of a run that never validated.

    Lightning's own `save_last` follows only when a new best was saved (2.6): a run that was interrupted after a while
    without one would go on from there.

    Args:
        dirpath: folder of the checkpoints.
    """

    def __init__(self, dirpath: str | Path) -> None:
        self.dirpath = dirpath  # as ModelCheckpoint names it: where each process puts its own part
        self.path = Path(dirpath) / "last.ckpt"
        self._saved = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not getattr(trainer, "fast_dev_run", False):
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._saved and not getattr(trainer, "fast_dev_run", False):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved = True
