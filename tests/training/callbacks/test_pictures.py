"""Pictures after each validation, and that drawing them leaves no trace in the training."""

from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn

from unrolled.training.callbacks.pictures import Pictures


class Painter(LightningModule):
    """Draws from the generator, and from torch's global one as well, as a careless task might."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.noise: list[float] = []

    def pictures(self, generator: torch.Generator) -> dict[str, Figure | str | bytes]:
        assert not torch.is_grad_enabled()
        torch.rand(3)
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot(torch.rand(4, generator=generator).tolist())
        text = f"<svg>{torch.rand((), generator=generator).item()}</svg>"
        return {"line.png": figure, "number.svg": text, "sound.wav": b"RIFF\x00"}

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.noise.append(torch.rand(()).item())
        return self.weight * batch

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: LightningModule, *callbacks: Any) -> None:
    data: Any = torch.utils.data.DataLoader([torch.tensor(1.0)] * 2, batch_size=None)
    torch.manual_seed(7)
    options: dict[str, Any] = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    Trainer(accelerator="cpu", max_epochs=2, callbacks=list(callbacks), logger=False, **options).fit(module, data, data)


def test_they_are_files_and_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    plain, one, same, other = (Painter() for _ in range(4))
    fit(plain)
    fit(one, Pictures(tmp_path / "one", seed=3))
    fit(same, Pictures(tmp_path / "same", seed=3))
    fit(other, Pictures(tmp_path / "other", seed=4))

    texts = [(tmp_path / name / "pictures" / "number.svg").read_text() for name in ("one", "same", "other")]
    expected = torch.Generator().manual_seed(3 + 4)  # the seed and the last step
    torch.rand(4, generator=expected)
    assert texts[0] == texts[1] == f"<svg>{torch.rand((), generator=expected).item()}</svg>"
    assert texts[2] != texts[0]
    assert matplotlib.image.imread(tmp_path / "one" / "pictures" / "line.png").shape == (120, 120, 4)
    assert (tmp_path / "one" / "pictures" / "sound.wav").read_bytes() == b"RIFF\x00"
    assert one.noise == plain.noise


def test_a_task_without_them_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Blind(Painter):
        pictures = None  # type: ignore[assignment]  # as if it were not there

    fit(Blind(), Pictures(tmp_path))

    assert caplog.text.count("Pictures is disabled: Blind has no pictures(generator)") == 1
    assert not (tmp_path / "pictures").exists()
