"""Counting from the command line: learned from short strings, scored on long ones."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.training.run.runner import run, score
from unrolled_tasks.counting import Counting

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]
QUIET = ["task=counting", "trainer=cpu", "callbacks.progress=null", "callbacks.curves=null"]
QUIET += ["+trainer.enable_progress_bar=false"]
ADAM = ["optimizer=adam", "optimizer.lr=2e-2"]
SMALL = ["data.train_size=60", "data.validation_size=20", "data.test_size=20", "data.batch_size=6"]


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_parity_of_short_strings_is_that_of_long_ones(folder: Path, configure: Configure) -> None:
    lengths = ["data.problem.train_lengths=[1,8]", "data.problem.test_lengths=[20,30]", "data.problem.every_step=true"]
    size = ["data.train_size=6000", "data.validation_size=100", "data.test_size=50"]
    run(configure("run", *QUIET, *ADAM, "data=parity", *lengths, *size, "trainer.max_epochs=2", small=False))

    found = summary(folder / "run")
    assert found["test/exact_match"] == found["test/solved"] == 1.0
    assert found["test/solved_length"] >= 29
    for name in Counting.files:
        assert (folder / "run" / name).stat().st_size > 100


def test_a_counter_is_scored_by_the_greatest_n_up_to_which_all_is_right(folder: Path, configure: Configure) -> None:
    cell = ["model=peephole_lstm", "model.cell.peepholes=false", "model.cell.missing_gate=forget"]
    size = ["data.problem.train_n=[1,5]", "data.problem.test_n=[1,20]", "data.train_size=12000"]
    net = ["network.encoder.hidden_size=4", "trainer.max_epochs=1", "data.batch_size=10"]
    run(configure("run", *QUIET, *ADAM, *cell, *size, *net, small=False))

    found = summary(folder / "run")
    assert found["best_validation"] == 1.0
    assert found["test/largest_n"] >= 5
    assert found["test/solved_length"] == 2 * found["test/largest_n"] + 1
    best = folder / "run" / "checkpoints" / "best.ckpt"
    given = ["task=counting", f"checkpoint={best}", "data.problem.train_n=[1,5]", "split=validation"]
    assert score(configure("score", *given, name="evaluate", small=False))["test/largest_n"] == 5


@pytest.mark.parametrize("data", ["anbn", "anbncn", "dyck", "parity", "even_pairs", "modular_arithmetic"])
def test_each_language_trains_and_is_resumed_exactly(data: str, folder: Path, configure: Configure) -> None:
    long = {"anbn": "test_n=[1,9]", "anbncn": "test_n=[1,9]"}.get(data, "test_lengths=[42,50]")
    common = [*QUIET, f"data={data}", f"data.problem.{long}", *SMALL, "scheduler=none", "test=false"]
    run(configure("one", *common, "trainer.max_epochs=2", "test=true", small=False))
    run(configure("part", *common, "trainer.max_steps=13", "trainer.max_epochs=-1", small=False))
    last = folder / "part" / "checkpoints" / "last.ckpt"
    run(configure("rest", *common, "trainer.max_epochs=2", f"resume={last}", small=False))

    one, other = (load_bundle(folder / name / "checkpoints" / "last.ckpt").network for name in ("one", "rest"))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    found = summary(folder / "one")
    assert 0.0 <= found["test/exact_match"] <= found["test/accuracy"] <= 1.0
    assert ("test/largest_n" in found) == data.startswith("anbn")


@pytest.mark.distributed
@pytest.mark.slow  # long_lag is of the same kind
def test_two_processes_are_one_with_the_joined_batch(folder: Path, python: Process, train_script: str) -> None:
    common = [*QUIET, "data=dyck", "data.train_size=60", "data.validation_size=20", "data.test_size=21"]
    common += ["trainer.max_steps=5", "trainer.max_epochs=-1"]

    one = python(train_script, *common, "data.batch_size=8", "hydra.run.dir=one")
    two = python(train_script, *common, "data.batch_size=4", "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two")

    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    found, same = summary(folder / "one"), summary(folder / "two")
    for name in ("loss", "exact_match", "solved_length", "sequences", "mean_absolute_error"):
        assert found[f"test/{name}"] == pytest.approx(same[f"test/{name}"], rel=1e-4), name
