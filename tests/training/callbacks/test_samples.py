"""Texts after each validation, and that writing them leaves no trace in the training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from unrolled.training.callbacks import samples
from unrolled.training.callbacks.averaging import WeightAveraging
from unrolled.training.callbacks.samples import Samples
from unrolled.training.console import terminal as console


class Writer(LightningModule):
    """Writes what it draws from the generator, and draws from torch's global one as well, as a careless task might."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.texts: list[str] = []
        self.noise: list[float] = []
        self.seen: list[float] = []

    def sample(self, generator: torch.Generator) -> str:
        assert not torch.is_grad_enabled()
        assert not self.training
        torch.rand(3)
        self.seen.append(self.weight.item())
        self.texts.append(f"[red]{torch.randint(100, (3,), generator=generator).tolist()} ```fence``` é")
        return self.texts[-1]

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.noise.append(torch.rand(()).item())
        return self.weight * batch

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: Writer, *callbacks: Any, **options: Any) -> None:
    data: Any = torch.utils.data.DataLoader([torch.tensor(1.0)] * 2, batch_size=None)
    torch.manual_seed(7)
    Trainer(
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=2,
        callbacks=list(callbacks),
        **{"logger": False, **options},
    ).fit(module, data, data)


def test_every_validation_appends_a_text_with_its_step(tmp_path: Path) -> None:
    module = Writer()

    fit(module, Samples(tmp_path / "new"))

    first, second = module.texts
    written = (tmp_path / "new" / "samples.md").read_text(encoding="utf-8")
    assert written == f"## Step 2\n\n````text\n{first}\n````\n\n## Step 4\n\n````text\n{second}\n````\n\n"
    assert first != second


def test_the_training_draws_the_same_numbers_as_without(tmp_path: Path) -> None:
    with_them, without = Writer(), Writer()

    fit(with_them, Samples(tmp_path))
    fit(without)

    assert with_them.noise == without.noise
    assert len(with_them.texts) == 2


def test_the_texts_follow_from_seed_and_step_alone(tmp_path: Path) -> None:
    first, second, third = Writer(), Writer(), Writer()

    fit(first, Samples(tmp_path, seed=3))
    fit(second, Samples(tmp_path, seed=3), val_check_interval=1)
    fit(third, Samples(tmp_path, seed=4))

    assert first.texts == second.texts[1::2]
    assert first.texts != third.texts


@pytest.mark.parametrize("first", [True, False])
def test_the_texts_are_the_averages(tmp_path: Path, first: bool) -> None:
    module = Writer()
    callbacks = [Samples(tmp_path), WeightAveraging(0.5)]

    fit(module, *(callbacks if first else reversed(callbacks)))

    # The weight falls by 0.1 a step from 1: 0.9, 0.8, 0.7, 0.6.
    assert module.seen == pytest.approx([0.85, 0.6875], rel=1e-6)


def test_a_log_gets_plain_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    module = Writer()

    fit(module, Samples(tmp_path))

    shown = capsys.readouterr().out
    assert f"--- sample at step 2 ---\n{module.texts[0]}\n---\n" in shown
    assert "\x1b" not in shown


def test_a_terminal_gets_a_panel_with_the_brackets_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "is_interactive", lambda: True)
    module = Writer()

    fit(module, Samples(tmp_path))

    shown = capsys.readouterr().out
    assert "╭─ sample at step 2 ─" in shown
    assert module.texts[0] in shown


def test_a_dumb_terminal_does_not_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)

    monkeypatch.setenv("TERM", "xterm-256color")
    clever = console.is_interactive()
    monkeypatch.setenv("TERM", "dumb")
    dumb = console.is_interactive()

    assert (clever, dumb) == (True, False)


def test_tensorboard_gets_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = TensorBoardLogger(tmp_path)
    added: list[tuple[str, str, int]] = []
    monkeypatch.setattr(logger.experiment, "add_text", lambda *args: added.append(args))
    module = Writer()

    fit(module, Samples(tmp_path), logger=logger)

    assert [(name, step) for name, _, step in added] == [("samples", 2), ("samples", 4)]
    assert module.texts[0] in added[0][1]


def test_a_task_that_cannot_write_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(Writer, "sample")

    fit(Writer(), Samples(tmp_path))

    assert caplog.text.count("Samples is disabled: Writer has no sample(generator)") == 1
    assert not (tmp_path / "samples.md").exists()
