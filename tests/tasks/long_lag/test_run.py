"""Long lags from the command line: learned, resumed, shared between processes, reported."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.training.run.runner import run
from unrolled_tasks.long_lag import LongLag

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]
QUIET = ["task=long_lag", "trainer=cpu", "callbacks.progress=null", "callbacks.curves=null"]
QUIET += ["+trainer.enable_progress_bar=false"]
SMALL = ["data.train_size=60", "data.validation_size=20", "data.test_size=20", "data.batch_size=6"]


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_a_symbol_is_recalled_and_the_run_ends_when_it_is(folder: Path, configure: Configure) -> None:
    options = ["data=noise_free_lag", "data.problem.lag=5", "optimizer=adam", "optimizer.lr=2e-2", "scheduler=none"]
    options += ["callbacks/early_stopping=solved", "data.validation_size=50", "data.test_size=50", "model=gru"]
    run(configure("run", *QUIET, *options, small=False))

    found = summary(folder / "run")
    assert found["test/solved"] == found["test/exact_match"] == 1.0
    assert found["test/solved_length"] == 5
    assert found["test/sequences"] < 50000
    for name in LongLag.files:
        assert (folder / "run" / name).stat().st_size > 100


def test_numbers_are_shown_beside_the_truth(folder: Path, configure: Configure) -> None:
    run(configure("run", *QUIET, "data=adding", "data.problem.min_length=22", *SMALL, small=False))

    page = (folder / "run" / "predictions.md").read_text()
    assert "| step | input | truth | prediction |" in page
    assert ", -1 |" in page  # the last frame's marker
    found = summary(folder / "run")
    assert 0.0 < found["test/mean_absolute_error"] < 1.0
    assert found["test/accuracy"] == found["test/exact_match"]


SHORT = {
    "adding": "min_length=22",
    "multiplication": "min_length=22",
    "temporal_order_6a": "relevant=2",
    "temporal_order_6b": "relevant=3",
    "noise_free_lag": "variant=2c",
    "noisy_lag": "variant=3c",
    "copy": "lag=5",
    "delayed_recall": "lag=5",
}


@pytest.mark.parametrize("data", SHORT)
def test_each_problem_trains_and_is_resumed_exactly(data: str, folder: Path, configure: Configure) -> None:
    common = [*QUIET, f"data={data}", f"data.problem.{SHORT[data]}", *SMALL, "scheduler=none", "test=false"]
    run(configure("one", *common, "trainer.max_epochs=2", small=False))
    run(configure("part", *common, "trainer.max_steps=13", "trainer.max_epochs=-1", small=False))
    last = folder / "part" / "checkpoints" / "last.ckpt"
    run(configure("rest", *common, "trainer.max_epochs=2", f"resume={last}", "test=true", small=False))

    one, other = (load_bundle(folder / name / "checkpoints" / "last.ckpt").network for name in ("one", "rest"))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert summary(folder / "rest")["test/sequences"] == 120


@pytest.mark.distributed
def test_two_processes_are_one_with_the_joined_batch(folder: Path, python: Process, train_script: str) -> None:
    common = [*QUIET, "data=adding", "data.problem.min_length=22", "data.train_size=60", "data.validation_size=20"]
    common += ["data.test_size=21", "trainer.max_steps=5", "trainer.max_epochs=-1"]

    one = python(train_script, *common, "data.batch_size=8", "hydra.run.dir=one")
    two = python(train_script, *common, "data.batch_size=4", "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two")

    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    for name in ("loss", "exact_match", "sequences", "mean_absolute_error"):
        found, same = (summary(folder / run)[f"test/{name}"] for run in ("one", "two"))
        assert found == pytest.approx(same, rel=1e-4), name
