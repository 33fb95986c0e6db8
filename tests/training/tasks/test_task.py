"""What a training step says of itself is heard by whoever listens, and costs nothing when nobody does."""

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import LightningModule
from omegaconf import DictConfig

from unrolled.training.run.runner import run
from unrolled.training.tasks import base as task

Configure = Callable[..., DictConfig]
STEPS = 12
HEARD = ("train/loss", "gradient/norm_before", "gradient/norm_after", "gradient/clipped_share", "learning_rate")


def logged(folder: Path) -> dict[int, dict[str, str]]:
    """The numbers of each training step that a logger wrote."""
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    return {int(row["step"]): {name: row[name] for name in HEARD} for row in rows}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names in the order in which Lightning was asked to log them."""
    names: list[str] = []
    log = LightningModule.log

    def counted(self: Any, name: str, *args: Any, **options: Any) -> None:
        names.append(name)
        log(self, name, *args, **options)

    monkeypatch.setattr(LightningModule, "log", counted)
    return names


def test_loggers_hear_of_a_step_what_they_would_if_each_were_logged(
    configure: Configure, folder: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "_REFRESH_SECONDS", float("inf"))  # no bar is drawn
    short = ["test=false", f"trainer.max_steps={STEPS}"]
    run(configure("each", *short, "trainer.log_every_n_steps=1"))
    assert asked.count("train/loss") == STEPS
    asked.clear()
    run(configure("third", *short, "trainer.log_every_n_steps=3"))

    each, third = logged(folder / "each"), logged(folder / "third")
    assert list(each) == list(range(STEPS))
    assert third == {step: each[step] for step in (2, 5, 8, 11)}
    assert all(asked.count(name) == 1 + STEPS // 3 for name in HEARD), "the first and those, nothing in between"


def test_a_bar_hears_of_a_step_as_often_as_it_is_drawn(
    configure: Configure, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    looked = SimpleNamespace(
        monotonic=lambda: next(clock) / 10
    )  # each look of the task at it takes a tenth of a second
    monkeypatch.setattr(task, "time", looked)

    run(configure("run", "test=false", f"trainer.max_steps={STEPS}", "trainer.log_every_n_steps=1000"))

    assert STEPS / 3 <= asked.count("train/loss") < STEPS
