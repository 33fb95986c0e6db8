"""The examples of examples/slurm, and runs without them, under a real SLURM."""

import csv
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "slurm"
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


@pytest.fixture
def long(folder: Path, options: list[str]) -> list[str]:
    """A run of at least 30 seconds, so that it can be interrupted: each step takes a tenth of one."""
    kept = [option for option in options if not option.startswith("trainer.max_steps")]
    slow = [f"hydra.searchpath=[file://{folder}/conf]", "callbacks=slow", "callbacks.last.minutes=0"]
    return [*kept, *slow, "trainer.max_steps=300", "trainer.max_epochs=100"]


def run_folder(folder: Path, job: str) -> Path:
    """Returns the folder that a job has chosen for its run."""
    (found,) = folder.glob(f"outputs/char_lm/slurm/{job}-*")
    return found


def wait_for_step(cluster: Any, folder: Path, job: str, step: int = 1) -> None:
    """Waits until the run of a job has saved after a step."""

    def is_saved() -> bool:
        found = list(folder.glob(f"outputs/char_lm/slurm/{job}-*/checkpoints/last.ckpt"))
        return bool(found) and torch.load(found[0], weights_only=True)["global_step"] >= step

    cluster.wait(job, until=lambda job: is_saved())


def wait_for(condition: Callable[[], bool], message: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.2)


def uninterrupted(cluster: Any, folder: Path, long: list[str], *more: str) -> Path:
    quick = [option for option in long if option != "callbacks=slow"]
    run_alone(cluster, folder, *quick, *more, "run_dir=alone")
    return folder / "alone"


def test_a_job_goes_on_after_its_time_limit(cluster: Any, folder: Path, long: list[str]) -> None:
    rarely = [*long, "trainer.max_steps=1600", "callbacks.last.minutes=5"]
    # The warning comes up to a minute early: 300 seconds before the end are one to two minutes after the start.
    job = cluster.submit("--time=7", EXAMPLES / "requeue.sbatch", *rarely, folder=folder)
    alone = uninterrupted(cluster, folder, rarely)

    assert cluster.wait(job, seconds=1200) == "COMPLETED", cluster.said(cluster.job(job))
    assert int(cluster.job(job)["Restarts"]) >= 1
    assert_same_end(run_folder(folder, job), alone)


@pytest.mark.parametrize("nodes", [1, 2])
def test_one_of_two_ranks_requeues_their_job_after_both_have_saved(
    cluster: Any, folder: Path, long: list[str], nodes: int
) -> None:
    tasks = [f"--nodes={nodes}", f"--ntasks-per-node={2 // nodes}"]
    tasks.append("--export=ALL,SLURM_KILL_BAD_EXIT=1")  # the first task that fails ends the others
    two = ["trainer=ddp", f"trainer.devices={2 // nodes}", f"trainer.num_nodes={nodes}", "data.batch_size=2"]
    job = cluster.submit(*tasks, EXAMPLES / "requeue.sbatch", *long, *two, folder=folder)
    wait_for_step(cluster, folder, job, 3)
    cluster.output("scancel", "--signal=USR1", job)
    alone = uninterrupted(cluster, folder, long, *two, "trainer.devices=2", "trainer.num_nodes=1")

    assert cluster.wait(job) == "COMPLETED", cluster.said(cluster.job(job))
    assert cluster.job(job)["Restarts"] == "1"
    assert cluster.said(cluster.job(job)).count("is requeued") == 1
    assert_same_end(run_folder(folder, job), alone)


@pytest.mark.parametrize("partition", ["low", "lowest"])  # with a grace time, and without: SLURM requeues by itself
def test_a_preempted_job_goes_on(cluster: Any, folder: Path, long: list[str], partition: str) -> None:
    whole = ["--nodelist=127.0.0.2", "--exclusive"]
    low = [f"--partition={partition}", *whole]
    job = cluster.submit(*low, EXAMPLES / "requeue.sbatch", *long, folder=folder)
    wait_for_step(cluster, folder, job, 3)
    (folder / "urgent.sh").write_text("#!/bin/bash\nsleep 5\n")
    urgent = cluster.submit("--partition=high", *whole, "urgent.sh", folder=folder)
    alone = uninterrupted(cluster, folder, long)

    assert cluster.wait(urgent) == "COMPLETED"
    assert cluster.wait(job) == "COMPLETED", cluster.said(cluster.job(job))
    assert cluster.job(job)["Restarts"] == "1"
    assert_same_end(run_folder(folder, job), alone)


def test_a_cancelled_job_saves_and_does_not_come_back(cluster: Any, folder: Path, long: list[str]) -> None:
    job = cluster.submit(EXAMPLES / "requeue.sbatch", *long, folder=folder)
    wait_for_step(cluster, folder, job)
    cluster.output("scancel", job)

    assert cluster.wait(job) == "CANCELLED"
    assert cluster.job(job)["Restarts"] == "0"
    wait_for(lambda: "SIGTERM: ended after step" in cluster.said(cluster.job(job)), "it did not save")
    assert "resume with" in cluster.said(cluster.job(job))


def test_jobs_of_an_array_have_folders_of_their_own_and_go_on_alone(
    cluster: Any, folder: Path, long: list[str]
) -> None:
    job = cluster.submit("--array=1-2", EXAMPLES / "array.sbatch", *long, folder=folder)
    wait_for_step(cluster, folder, f"{job}_2")
    cluster.output("scancel", "--signal=USR1", f"{job}_2")

    for index, restarts in (("1", "0"), ("2", "1")):
        assert cluster.wait(f"{job}_{index}") == "COMPLETED", cluster.said(cluster.job(f"{job}_{index}"))
        assert cluster.job(f"{job}_{index}")["Restarts"] == restarts
        summary_of_task = summary(run_folder(folder, f"{job}_{index}"))
        assert (summary_of_task["seed"], summary_of_task["steps"]) == (int(index), 300)


def test_a_batch_script_without_srun_gets_its_warning_through_exec(cluster: Any, folder: Path, long: list[str]) -> None:
    (folder / "plain.sh").write_text('#!/bin/bash\nexec python -m unrolled train requeue=true "$@"\n')
    job = cluster.submit("--requeue", "--ntasks=2", "plain.sh", *long, "trainer.max_steps=100", folder=folder)
    wait_for_step(cluster, folder, job)
    cluster.output("scancel", "--batch", "--signal=USR1", job)  # as --signal=B:USR1@300 does

    assert cluster.wait(job) == "COMPLETED", cluster.said(cluster.job(job))
    assert cluster.job(job)["Restarts"] == "1"
    assert summary(run_folder(folder, job))["steps"] == 100


def test_a_sweep_sent_to_slurm_outlives_the_command_that_waits_for_it(
    cluster: Any, folder: Path, long: list[str]
) -> None:
    train = [sys.executable, "-m", "unrolled", "train", "-m"]
    sweep = [*train, "hydra/launcher=slurm", *long, "seed=1,2", "run_dir=sweep"]
    environment = cluster.of_run(folder)
    waiting = subprocess.Popen(sweep, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    both = [folder / "sweep" / number / "checkpoints" / "last.ckpt" for number in ("0", "1")]
    wait_for(lambda: all(path.is_file() for path in both) or waiting.poll() is not None, "the jobs do not train")
    second = (folder / "sweep" / ".sweep" / "1.slurm").read_text().strip()
    cluster.output("scancel", "--signal=USR1", second)
    waiting.send_signal(signal.SIGTERM)
    _, said = waiting.communicate(timeout=120)

    assert waiting.returncode == 128 + signal.SIGTERM, said
    assert f"{second}: still in the queue" in said
    again = subprocess.run(
        [*train, "resume=sweep"], cwd=folder, env=environment, capture_output=True, text=True, timeout=550
    )
    assert again.returncode == 0, again.stdout + again.stderr
    with (folder / "sweep" / "results.csv").open(newline="") as file:
        assert [(row["seed"], row["state"]) for row in csv.DictReader(file)] == [("1", "complete"), ("2", "complete")]
    assert cluster.job(second)["Restarts"] == "1"
    assert cluster.job(second)["ArrayTaskId"] == "1"
    assert_same_end(folder / "sweep" / "1", uninterrupted(cluster, folder, long, "seed=2"))


def test_one_run_sent_to_slurm_starts_a_task_for_each_device(cluster: Any, folder: Path, options: list[str]) -> None:
    two = [*options, "data.batch_size=2", "trainer=ddp", "trainer.devices=2"]
    run_alone(cluster, folder, *two, "hydra/launcher=slurm", "run_dir=sent")
    run_alone(cluster, folder, *two, "run_dir=alone")

    assert summary(folder / "sent" / "0")["processes"] == 2
    assert_same_end(folder / "sent" / "0", folder / "alone")


def test_the_section_of_the_readme_can_be_followed(cluster: Any, folder: Path, options: list[str]) -> None:
    section = (ROOT / "README.md").read_text().partition("## On a cluster\n")[2].partition("\n## ")[0]
    commands = [shlex.split(line, comments=True) for line in section.partition("```\n")[2].splitlines()]
    sent = [words[1:] for words in commands if words[:1] == ["sbatch"]]
    (launched,) = [words[1:] for words in commands if words[:1] == ["python"]]
    for name in ("examples", "train.py"):
        (folder / name).symlink_to(ROOT / name)
    few = [*options, "data.batch_size=1"]  # for each of eight processes

    jobs = [cluster.submit(*words, *few, folder=folder) for words in sent]
    done = subprocess.run(
        [sys.executable, *launched, *options, "run_dir=sweep"], cwd=folder, env=cluster.of_run(folder), timeout=590
    )

    assert done.returncode == 0
    assert len(jobs) == 2
    for job, processes in zip(jobs, (8, 1), strict=True):
        assert cluster.wait(job, seconds=590) == "COMPLETED", cluster.said(cluster.job(job))
        assert summary(run_folder(folder, job))["processes"] == processes
    assert all((folder / "sweep" / number / "summary.json").is_file() for number in ("0", "1"))
