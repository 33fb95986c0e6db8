"""last.ckpt: written after every validation, better or not, and after epochs without one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from unrolled.training.callbacks.last import LastCheckpoint


class Worse(LightningModule):
    """Validates worse each time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss", float(self.trainer.global_step))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Seen(Callback):
    """The step of last.ckpt when an epoch begins."""

    def __init__(self, folder: Path) -> None:
        self.path, self.steps = folder / "last.ckpt", []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.path.is_file():
            self.steps.append(torch.load(self.path, weights_only=True)["global_step"])


def fit(folder: Path, *callbacks: Callback, **options: Any) -> None:
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, "best", monitor="loss"), LastCheckpoint(folder), *callbacks],
        **options,
    )
    trainer.fit(Worse(), DataLoader([0, 1]), DataLoader([0]))


def test_it_follows_every_validation_though_none_was_better(tmp_path: Path) -> None:
    seen = Seen(tmp_path)

    fit(tmp_path, seen)

    assert seen.steps == [2, 4]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 6
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize(
    ("options", "step"), [({"limit_val_batches": 0}, 6), ({"max_steps": 1}, 1), ({"check_val_every_n_epoch": 2}, 6)]
)
def test_it_holds_the_end_though_that_was_not_validated(tmp_path: Path, options: dict[str, int], step: int) -> None:
    fit(tmp_path, **options)

    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == step
