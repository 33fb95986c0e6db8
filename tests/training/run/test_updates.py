"""How many updates a run will make is said before it makes them, and is what it makes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from unrolled.training.run.runner import run

Configure = Callable[..., DictConfig]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["trainer.max_epochs=2"], True),
        (["trainer.max_epochs=2", "trainer.accumulate_grad_batches=3", "++trainer.limit_train_batches=7"], True),
        (["trainer.max_steps=3"], False),
        (["trainer.max_epochs=1", "data.batch_size=1", "data.window=4"], False),
    ],
)
def test_the_updates_that_are_announced_are_made(
    folder: Path, configure: Configure, capsys: Any, options: list[str], hint: bool
) -> None:
    run(configure("run", *options, "test=false", "callbacks.samples=null", "callbacks.curves=null"))

    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("training"))
    made = json.loads((folder / "run" / "summary.json").read_text())["steps"]
    assert int(said.split()[1].replace(",", "")) == made
    assert ("too few to learn much" in said) == hint
    if hint:
        epochs = int(said.partition("trainer.max_epochs=")[2].split()[0])
        assert f"makes {epochs * made // 2:,} updates" in said
        assert 1000 <= epochs * made // 2 < 1000 + made


def test_a_network_that_is_trained_already_may_want_few(folder: Path, configure: Configure, capsys: Any) -> None:
    quick = ["trainer.max_epochs=1", "test=false", "callbacks.samples=null"]
    run(configure("first", *quick))
    capsys.readouterr()

    run(configure("second", *quick, f"init_from={folder}/first"))

    said = capsys.readouterr().out
    assert "1 epoch of" in said
    assert "too few to learn much" not in said
