"""What a run shows, in a log and in a terminal, and how it reckons the time left."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from unrolled.training.callbacks import progress
from unrolled.training.callbacks.progress import Progress

ESCAPE = "\x1b"


class Talking(LightningModule):
    """A training step takes two seconds of the test's clock, a validation step ten."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.clock: Clock | None = None

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.clock is not None:
            self.clock.now += 2.0
        self.log("train/loss", 1.25, prog_bar=True, on_step=True, on_epoch=True)
        self.log("train/bits_per_character", 2.345678, prog_bar=True)
        self.log("gradient/norm_before", 0.5, prog_bar=True)
        self.log("characters_per_second", 81234.0, prog_bar=True)
        self.log("hidden", 7.0)
        return self.weight

    def test_step(self, batch: Tensor, batch_idx: int, dataloader_idx: int = 0) -> None:
        if self.clock is not None:
            self.clock.now += 10.0

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        if self.clock is not None:
            self.clock.now += 10.0
        self.log("validation/loss", 1.5, prog_bar=True, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def fit(
    bar: Progress, clock: Clock | None = None, *callbacks: Callback, ckpt_path: str | None = None, **options: Any
) -> Trainer:
    module = Talking()
    module.clock = clock
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
        callbacks=[bar, *callbacks],
        **{"max_epochs": 2, **options},
    )
    data: Any = torch.utils.data.DataLoader([torch.ones(())] * 4, batch_size=None)
    trainer.fit(module, data, data, ckpt_path=ckpt_path)
    return trainer


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]


def test_a_log_gets_a_line_after_each_validation(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    fit(Progress(every=1000.0), clock, num_sanity_val_steps=0)

    assert lines(capsys) == [
        "step 4 of 8  epoch 1 of 2  loss 1.25  bits per character 2.346  gradient norm 0.5  characters/s 81.2k  "
        "validation loss 1.5  0:00:48 elapsed  0:00:48 left",
        "step 8 of 8  epoch 2 of 2  loss 1.25  bits per character 2.346  gradient norm 0.5  characters/s 81.2k  "
        "validation loss 1.5  0:01:36 elapsed  0:00:00 left",
    ]


def test_a_log_gets_a_line_every_so_many_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    fit(Progress(every=4.0), clock, limit_val_batches=0)

    assert [line.split("  ")[0] for line in lines(capsys)] == [f"step {step} of 8" for step in (2, 4, 6, 8)]


def test_a_log_tells_where_a_long_validation_and_a_test_are(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress(every=15.0)
    trainer = fit(bar, clock, max_epochs=1, num_sanity_val_steps=0)
    trained = capsys.readouterr().out
    module = trainer.lightning_module
    data: Any = torch.utils.data.DataLoader([torch.ones(())] * 4, batch_size=None)
    trainer.test(module, [data, data], verbose=False)

    assert [line for line in trained.splitlines() if line.startswith("validation")] == [
        "validation batch 1 of 4",  # 8 seconds of training before it
        "validation batch 3 of 4",
    ]
    assert capsys.readouterr().out.splitlines() == [
        "test of 8 batches",
        "test batch 2 of 8  0:00:20 elapsed  0:01:00 left",
        "test batch 4 of 8  0:00:40 elapsed  0:00:40 left",
        "test batch 6 of 8  0:01:00 elapsed  0:00:20 left",
        "test batch 8 of 8  0:01:20 elapsed  0:00:00 left",
    ]


def test_a_log_gets_no_escape_codes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")

    fit(Progress())

    shown = capsys.readouterr().out
    assert "loss 1.25" in shown
    assert ESCAPE not in shown
    assert "\r" not in shown


def test_a_terminal_gets_a_bar_with_the_runs_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "180"}.items():
        monkeypatch.setenv(name, value)

    fit(Progress(plain=False))

    shown = capsys.readouterr().out
    assert ESCAPE in shown
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert re.search(
        r"Epoch 2 of 2 ━+ 4/4 0:00:00 • 0:00:00 left loss: 1\.25  bits per character: 2\.346  gradient", shown
    )
    assert "characters/s: 81.2k" in shown
    assert "hidden" not in shown


def test_the_time_left_is_that_of_the_whole_run(clock: Clock) -> None:
    seen: list[tuple[float, float | None]] = []

    class Look(Progress):
        def on_train_batch_end(self, *args: Any) -> None:
            super().on_train_batch_end(*args)
            seen.append((self.elapsed, self.remaining))

    fit(Look(every=1000.0), clock, max_epochs=3, limit_val_batches=0)

    assert seen[0] == (2.0, 22.0)
    assert seen[5] == (12.0, 12.0)
    assert seen[-1] == (24.0, 0.0)


def test_the_time_left_of_a_resumed_run_counts_its_own_steps_alone(clock: Clock, tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path, filename="first")
    fit(Progress(), clock, saving, limit_val_batches=0, max_epochs=2)
    seen: list[float | None] = []

    class Look(Progress):
        def on_train_batch_end(self, *args: Any) -> None:
            super().on_train_batch_end(*args)
            seen.append(self.remaining)

    fit(Look(), clock, ckpt_path=str(tmp_path / "first.ckpt"), limit_val_batches=0, max_epochs=4)

    assert seen == [14.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("options", "total"),
    [
        ({"max_epochs": 3}, 12),
        ({"max_epochs": 3, "accumulate_grad_batches": 3}, 6),
        ({"max_epochs": 3, "max_steps": 5}, 5),
        ({"max_epochs": -1, "max_steps": 5}, 5),
    ],
)
def test_the_run_ends_at_the_nearer_limit(
    capsys: pytest.CaptureFixture[str], options: dict[str, Any], total: int
) -> None:
    trainer = fit(Progress(), **options)

    assert trainer.global_step == total
    assert all(line.split("  ")[0].endswith(f" of {total}") for line in lines(capsys))


def test_metrics_are_not_fetched_at_every_batch(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[float] = []
    bar = Progress(refresh_rate=1, plain=False)
    monkeypatch.setattr(bar, "get_metrics", lambda *args: fetched.append(clock.now) or {})
    monkeypatch.setattr(Talking, "log", lambda *args, **options: setattr(clock, "now", clock.now + 0.05))

    fit(bar, limit_val_batches=0, max_epochs=5)

    assert clock.now - 1000.0 == pytest.approx(5.0)  # five epochs, four steps, five logs
    assert 4 <= len(fetched) <= 6


@pytest.mark.parametrize("options", [{"refresh_rate": 0}, {"every": 0.0}])
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        Progress(**options)
