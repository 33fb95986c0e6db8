"""Under SLURM a run is one of several processes where srun started them, and nothing is queued again unasked."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

from unrolled.training.run.environment import SLURMStepEnvironment, cluster_environment
from unrolled.training.run.ranks import num_srun_tasks

Begin = Callable[..., "subprocess.Popen[str]"]
Ended = Callable[..., str]
Srun = Callable[..., dict[str, str]]
Process = Callable[..., subprocess.CompletedProcess[str]]

# What these programs set, from SLURM's manual pages of salloc, sbatch and srun.
ALLOCATION = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "127.0.0.1"}
BATCH = {**ALLOCATION, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "127.0.0.1"}
LAST = "outputs/char_lm/slurm/77-*/checkpoints/last.ckpt"
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
    folder: Path, begin: Begin, ended: Ended, srun: Srun, small: list[str], train_script: str
) -> None:
    second, first = (begin([train_script, *small], **srun(rank)) for rank in (1, 0))

    said = ended(first, status=2)

    assert "srun started 2 processes" in said
    assert "trainer=ddp trainer.devices=2" in said
    assert len(said.strip().splitlines()) == 1
    assert ended(second, status=2) == ""  # rank 0 has said it
    assert not list(folder.glob("outputs/*/*/*"))


@pytest.mark.distributed
def test_two_tasks_of_srun_train_as_two_processes_of_lightnings(
    folder: Path, python: Process, begin: Begin, ended: Ended, srun: Srun, small: list[str], train_script: str
) -> None:
    common = [*small, "data.batch_size=2", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    common += ["trainer.max_steps=4", "test=false", "logger=csv"]
    started = python(train_script, *common, "run_dir=own")
    assert started.returncode == 0, started.stderr

    tasks = [begin([train_script, *common], **srun(1))]
    time.sleep(2)  # rank 1 waits
    tasks.append(begin([train_script, *common], **srun(0)))
    for task in tasks:
        ended(task)
    (srun_folder,) = folder.glob("outputs/char_lm/slurm/*")
    assert re.fullmatch("77-[0-9a-f]{6}", srun_folder.name)

    own, srun = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (folder / "own", srun_folder)
    )
    assert json.loads((srun_folder / "summary.json").read_text())["processes"] == 2
    for name, value in own.items():
        assert torch.equal(value, srun[name]), name


@pytest.mark.parametrize("asked", [False, True])
def test_a_job_is_queued_again_only_where_that_was_asked_for(
    folder: Path, begin: Begin, ended: Ended, small: list[str], train_script: str, asked: bool
) -> None:
    noted = folder / "noted"
    programs = folder / "bin"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {noted}\n')
    (programs / "scontrol").chmod(0o755)
    job = {**BATCH, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    line = [train_script, *small, "test=false", "logger=csv", "callbacks.last.minutes=0", "seed=3"]
    line += ["callbacks.samples=null", "callbacks.curves=null", f"requeue={str(asked).lower()}"]

    run = begin([*line, "trainer.max_epochs=1000"], **job)
    deadline = time.monotonic() + 120
    while not list(folder.glob(LAST)) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGUSR1)

    ended(run, status=128 + signal.SIGUSR1)
    assert (noted.read_text().split() if noted.exists() else []) == (["requeue", "77"] if asked else [])
    (last,) = folder.glob(LAST)
    if asked:  # SLURM starts the same command again
        step = torch.load(last, weights_only=True)["global_step"]
        again = begin([*line, "trainer.max_epochs=1000"], **job, SLURM_RESTART_COUNT="1")
        while torch.load(last, weights_only=True)["global_step"] < step + 2 and again.poll() is None:
            time.sleep(0.05)
        again.send_signal(signal.SIGTERM)
        ended(again, status=128 + signal.SIGTERM)
        assert list(folder.glob(LAST)) == [last]
