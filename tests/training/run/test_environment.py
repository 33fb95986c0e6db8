"""Under SLURM a run is one of several processes where srun started them, and nothing is queued again unasked."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

from unrolled.training.run.environment import SLURMStepEnvironment, cluster_environment, num_srun_tasks

ROOT = Path(__file__).resolve().parents[3]
Process = Callable[..., subprocess.CompletedProcess[str]]

# What these programs set, from SLURM's manual pages of salloc, sbatch and srun.
ALLOCATION = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "127.0.0.1"}
BATCH = {**ALLOCATION, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "127.0.0.1"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({}, type(None)),  # Lightning's own choice
        (ALLOCATION, LightningEnvironment),
        (BATCH, LightningEnvironment),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, LightningEnvironment),  # srun --pty, or one task of its own
        ({**STEP, "SLURM_STEP_NUM_TASKS": "4"}, SLURMStepEnvironment),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1", **TORCHRUN}, TorchElasticEnvironment),
    ],
)
def test_who_starts_processes(variables: dict[str, str], kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    found = cluster_environment()
    assert type(found) is kind
    assert num_srun_tasks() == int(variables.get("SLURM_STEP_NUM_TASKS", "0"))
    if isinstance(found, SLURMStepEnvironment):
        assert (found.world_size(), found.global_rank(), found.auto_requeue) == (4, 0, False)
    monkeypatch.delenv("MASTER_ADDR", raising=False)


@pytest.mark.parametrize("variables", [ALLOCATION, BATCH], ids=["salloc", "sbatch"])
def test_an_allocation_around_a_run_changes_nothing(
    folder: Path, python: Process, small: list[str], train_script: str, variables: dict[str, str]
) -> None:
    done = python(train_script, *small, "trainer.max_steps=2", "test=false", "run_dir=run", **variables)

    assert done.returncode == 0, done.stderr
    assert "SLURM_NTASKS=4 is ignored" in done.stdout + done.stderr
    assert json.loads((folder / "run" / "summary.json").read_text())["processes"] == 1


def test_tasks_that_nobody_asked_for_are_refused(
    folder: Path, python: Process, small: list[str], train_script: str
) -> None:
    step = {**STEP, "SLURM_STEP_NUM_TASKS": "4"}
    for more, said in (["run_dir=run"], "trainer=ddp trainer.devices=4"), ([], "give them one folder, run_dir=…"):
        done = python(train_script, *small, *more, **step)

        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "4" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (folder / "run").exists()


@pytest.mark.distributed
def test_two_tasks_of_srun_train_as_two_processes_of_lightnings(
    folder: Path, python: Process, small: list[str], train_script: str
) -> None:
    common = [*small, "data.batch_size=2", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    common += ["trainer.max_steps=4", "test=false", "logger=csv"]
    started = python(train_script, *common, "run_dir=own")
    assert started.returncode == 0, started.stderr

    port = str(20000 + os.getpid() % 20000)
    tasks: list[subprocess.Popen[str]] = []
    for rank in ("0", "1"):
        step = {**STEP, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "MASTER_PORT": port}
        tasks.append(begun(folder, [train_script, *common, "run_dir=srun"], step))
    for task in tasks:
        said, _ = task.communicate(timeout=240)
        assert task.returncode == 0, said

    own, srun = (
        torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("own", "srun")
    )
    assert json.loads((folder / "srun" / "summary.json").read_text())["processes"] == 2
    for name, value in own.items():
        assert torch.equal(value, srun[name]), name


def begun(folder: Path, arguments: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tasks")])
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("asked", [False, True])
def test_a_job_is_queued_again_only_where_that_was_asked_for(
    folder: Path, small: list[str], train_script: str, asked: bool
) -> None:
    noted = folder / "noted"
    programs = folder / "bin"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {noted}\n')
    (programs / "scontrol").chmod(0o755)
    job = {**BATCH, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    line = [train_script, *small, "test=false", "run_dir=run", "logger=csv", "callbacks.last.minutes=0", "seed=3"]
    line += ["callbacks.samples=null", "callbacks.curves=null", f"requeue={str(asked).lower()}"]
    last = folder / "run" / "checkpoints" / "last.ckpt"

    run = begun(folder, [*line, "trainer.max_epochs=1000"], job)
    deadline = time.monotonic() + 120
    while not last.is_file() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGUSR1)
    said, _ = run.communicate(timeout=120)

    assert run.returncode == 128 + signal.SIGUSR1, said
    assert (noted.read_text().split() if noted.exists() else []) == (["requeue", "77"] if asked else [])
    if asked:  # SLURM starts the same command again
        step = torch.load(last, weights_only=True)["global_step"]
        more = f"trainer.max_steps={step + 2}"
        again = begun(folder, [*line, more, "trainer.max_epochs=1000"], {**job, "SLURM_RESTART_COUNT": "1"})
        said, _ = again.communicate(timeout=240)
        assert again.returncode == 0, said
        assert torch.load(last, weights_only=True)["global_step"] == step + 2


def test_a_job_that_is_queued_again_needs_a_folder_that_it_finds(
    folder: Path, python: Process, small: list[str], train_script: str
) -> None:
    done = python(train_script, *small, "requeue=true", **BATCH)

    assert done.returncode == 2
    assert "give run_dir=…" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
