"""Grammar from the command line: learned, stopped when solved, resumed, shared between processes, scored."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.run.runner import run, score
from unrolled_tasks.grammar import Grammar

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]
QUIET = ["trainer=cpu", "callbacks.progress=null", "callbacks.curves=null", "+trainer.enable_progress_bar=false"]
TINY = ["task=grammar", *QUIET, "data.train_size=200", "data.validation_size=40", "data.test_size=40"]


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_a_network_learns_the_second_symbol_and_stops_when_all_is_legal(folder: Path, configure: Configure) -> None:
    options = ["experiment=grammar/embedded_reber", *QUIET, "data.batch_size=8", "optimizer.lr=2e-2"]
    run(configure("run", *options, small=False))

    found = summary(folder / "run")
    assert found["test/exact_match"] == found["test/accuracy"] == found["test/solved"] == 1.0
    assert found["test/sequences"] < 25600
    assert found["test/sequences"] % 256 in (0, 64, 128, 192)
    assert found["steps"] == found["test/sequences"] / 8  # it stopped there
    for name in Grammar.files:
        assert (folder / "run" / name).stat().st_size > 100
    page = (folder / "run" / "predictions.md").read_text()
    assert "all right" in page
    assert "✗" not in page
    best = folder / "run" / "checkpoints" / "best.ckpt"
    again = score(configure("score", "task=grammar", f"checkpoint={best}", name="evaluate", small=False))
    assert again["test/exact_match"] > 0.9  # on 1,000 other strings
    assert "test/sequences" not in again


def test_a_feedforward_net_cannot_know_the_second_symbol(folder: Path, configure: Configure) -> None:
    run(configure("run", *TINY, "model=feedforward", "model.num_layers=1", "optimizer.lr=2e-2", small=False))

    found = summary(folder / "run")
    assert found["test/exact_match"] == 0.0
    assert found["test/solved_length"] == 0.0
    assert found["test/accuracy"] < 0.9
    page = (folder / "run" / "predictions.md").read_text()
    assert "first mistake at prediction" in page
    assert "✗" in page
    assert "wrong: B " in (folder / "run" / "samples.md").read_text()


def test_streams_are_scored_up_to_their_first_mistake(folder: Path, configure: Configure) -> None:
    sizes = ["data.problem.stream=20", "data.problem.test_stream=300", "data.test_size=4", "data.validation_size=4"]
    run(configure("run", *TINY, "data=continual_reber", *sizes, "data.train_size=8", small=False))

    found = summary(folder / "run")
    assert 0 <= found["test/symbols_before_mistake"] < 300
    assert "300 steps, first mistake" in (folder / "run" / "predictions.md").read_text()


def test_a_resumed_run_ends_like_one_that_was_not(folder: Path, configure: Configure) -> None:
    common = [*TINY, "scheduler=none", "test=false", "data.batch_size=8"]
    run(configure("one", *common, "trainer.max_epochs=2", small=False))
    run(configure("part", *common, "trainer.max_steps=35", "trainer.max_epochs=-1", small=False))
    last = folder / "part" / "checkpoints" / "last.ckpt"
    run(configure("rest", *common, "trainer.max_epochs=2", f"resume={last}", small=False))

    one, other = (load_bundle(folder / name / "checkpoints" / "last.ckpt").network for name in ("one", "rest"))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    with pytest.raises(ConfigurationError, match=r"data\.seed was 1, now 2"):
        run(configure("other", *common, "trainer.max_epochs=2", f"resume={last}", "data.seed=2", small=False))


@pytest.mark.distributed
@pytest.mark.slow  # long_lag is of the same kind
def test_two_processes_are_one_with_the_joined_batch(folder: Path, python: Process, train_script: str) -> None:
    common = [*TINY, "trainer.max_steps=6", "trainer.max_epochs=-1"]

    one = python(train_script, *common, "data.batch_size=8", "hydra.run.dir=one")
    two = python(train_script, *common, "data.batch_size=4", "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two")

    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    found, same = summary(folder / "one"), summary(folder / "two")
    assert found["test/loss"] == pytest.approx(same["test/loss"], rel=1e-4)
    assert found["test/sequences"] == same["test/sequences"] == 48


def test_data_of_another_task_is_refused(folder: Path, configure: Configure) -> None:
    with pytest.raises(ConfigurationError, match="is it a choice for another task"):
        run(configure("run", "task=grammar", "data=digits", *QUIET, small=False))
    with pytest.raises(ConfigurationError, match="is it a choice for another task"):
        run(configure("run", "task=classification", "data=reber", *QUIET, small=False))
