"""The examples of examples/slurm, and runs without them, under a real SLURM."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "slurm"
SLOW = """
import time

from lightning.pytorch import Callback


class Slow(Callback):
    def on_train_batch_end(self, *arguments):
        time.sleep(0.1)
"""


@pytest.fixture
def options(folder: Path, small: list[str]) -> list[str]:
    """A small run on processors, with any number of processes."""
    (folder / "slow.py").write_text(SLOW)
    (folder / "conf" / "callbacks").mkdir(parents=True)
    (folder / "conf" / "callbacks" / "slow.yaml").write_text("defaults: [default]\nslow: {_target_: slow.Slow}\n")
    without = ["callbacks.samples=null", "callbacks.curves=null", "callbacks.throughput=null", "test=false"]
    given = [option for option in small if option != "trainer=cpu"]
    return [*given, *without, "logger=csv", "trainer.accelerator=cpu", "model.dropout=0.3", "trainer.max_steps=6"]


def run_alone(cluster: Any, folder: Path, *arguments: str) -> None:
    """Runs a command outside of SLURM."""
    command = [sys.executable, "-m", "unrolled", "train", *arguments]
    done = subprocess.run(command, cwd=folder, env=cluster.of_run(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_same_end(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def summary(path: Path) -> dict[str, Any]:
    return json.loads((path / "summary.json").read_text())


def test_tasks_of_srun_train_like_processes_started_without_slurm(
    cluster: Any, folder: Path, options: list[str]
) -> None:
    few = [*options, "data.batch_size=2"]
    started = {
        "one": cluster.submit("--ntasks-per-node=2", EXAMPLES / "one_node.sbatch", *few, "run_dir=one", folder=folder),
        "two": cluster.submit(
            "--ntasks-per-node=1", EXAMPLES / "several_nodes.sbatch", *few, "run_dir=two", folder=folder
        ),
    }
    run_alone(cluster, folder, *few, "trainer=ddp", "trainer.devices=2", "run_dir=alone")

    for name, job in started.items():
        assert cluster.wait(job) == "COMPLETED", cluster.said(cluster.job(job))
        assert summary(folder / name)["processes"] == 2
        assert_same_end(folder / name, folder / "alone")
    assert cluster.job(started["two"])["NumNodes"] == "2"


def test_an_allocation_of_two_tasks_around_a_plain_run(cluster: Any, folder: Path, options: list[str]) -> None:
    (folder / "plain.sh").write_text('#!/bin/bash\npython -m unrolled train "$@"\n')
    batch = cluster.submit("--ntasks=2", "plain.sh", *options, "trainer=cpu", "run_dir=batch", folder=folder)
    command = ["salloc", "--ntasks=2", sys.executable, "-m", "unrolled", "train", *options, "trainer=cpu"]
    done = subprocess.run(
        [*command, "run_dir=interactive"], cwd=folder, env=cluster.of_run(folder), capture_output=True, text=True
    )
    terminal = ["srun", "--ntasks=1", "--pty", *command[2:], "run_dir=terminal"]
    within = subprocess.run(terminal, cwd=folder, env=cluster.of_run(folder), capture_output=True, text=True)
    run_alone(cluster, folder, *options, "trainer=cpu", "run_dir=alone")

    assert cluster.wait(batch) == "COMPLETED", cluster.said(cluster.job(batch))
    assert done.returncode == 0, done.stderr
    assert within.returncode == 0, within.stdout
    for name in ("batch", "interactive", "terminal"):
        assert summary(folder / name)["processes"] == 1
        assert_same_end(folder / name, folder / "alone")
