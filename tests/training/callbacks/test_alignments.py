"""Heat maps of attention: drawn where it lay, replaced whole, refused where there is nothing to draw."""

from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from unrolled.training.callbacks.alignments import Alignment, Alignments, draw_alignment


class Attending(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def alignments(self, count: int) -> list[Alignment]:
        weights = torch.eye(3)
        return [Alignment(["ein", "Haus", "."], ["a", "house", "."], weights)][:count]


def fit(task: LightningModule, callback: Alignments, folder: Path) -> None:
    trainer = Trainer(
        max_steps=2,
        val_check_interval=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[callback],
        default_root_dir=folder,
    )
    trainer.fit(task, torch.utils.data.DataLoader([0, 1]), torch.utils.data.DataLoader([0]))


def test_the_picture_is_dark_where_attention_lay() -> None:
    figure = draw_alignment(Alignment(["x", "y"], ["a", "b", "c"], torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])))

    drawn = figure.axes[0].images[0].get_array()
    assert drawn is not None
    assert drawn.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["x", "y"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b", "c"]


def test_each_validation_leaves_its_pictures_whole(tmp_path: Path) -> None:
    fit(Attending(), Alignments(tmp_path, count=2), tmp_path)

    files = sorted(path.name for path in (tmp_path / "alignments").iterdir())
    assert files == ["1.png"]
    assert matplotlib.image.imread(tmp_path / "alignments" / "1.png").shape[2] == 4


def test_a_task_without_alignments_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Blind(Attending):
        alignments = None  # type: ignore[assignment]  # as if it were not there

    fit(Blind(), Alignments(tmp_path), tmp_path)

    assert caplog.text.count("Alignments is disabled: Blind has no alignments(count)") == 1
    assert not (tmp_path / "alignments").exists()
    with pytest.raises(ValueError, match="count=0"):
        Alignments(tmp_path, count=0)
