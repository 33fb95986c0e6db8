"""Starting the processes of a run as its launchers do."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

ROOT = Path(__file__).resolve().parents[3]

# What differs when the end itself is resumed, which takes no step: whether its last epoch counts as left.
BOOKKEEPING = (".loops.fit_loop.epoch_progress", ".loops.fit_loop.epoch_loop.state_dict", ".epoch", ".callbacks.Model")


@pytest.fixture
def begin(folder: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts Python processes, each in a session of its own, which ends with the test."""
    begun: list[subprocess.Popen[str]] = []

    def started(arguments: list[str], where: Path = folder, **variables: str) -> "subprocess.Popen[str]":
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tasks"), str(where)])
        environment: dict[str, Any] = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=where,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield started
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def ended() -> Callable[..., str]:
    """Waits for the end of a process, checks its status, and returns what it printed."""

    def wait(process: "subprocess.Popen[str]", status: int = 0) -> str:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == status, said
        return said

    return wait


@pytest.fixture
def free_port() -> str:
    return str(find_free_network_port())


@pytest.fixture
def srun(free_port: str) -> Callable[[int], dict[str, str]]:
    """What srun sets for a task of a step, from its manual page."""

    def variables(rank: int, tasks: int = 2) -> dict[str, str]:
        job = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "127.0.0.1"}
        step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_STEP_NUM_TASKS": str(tasks)}
        task = {"SLURM_NODEID": "0", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        return {**job, **step, **task, "MASTER_PORT": free_port}

    return variables


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool], "subprocess.Popen[str]"], None]:
    """Waits until something is so, while a process runs."""

    def wait(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
        deadline = time.monotonic() + 300
        while not condition():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return wait


@pytest.fixture
def unequal() -> Callable[..., list[str]]:
    """Where the last checkpoint of a run differs from that of a run that was resumed from a checkpoint, at a step."""

    def found(whole: Path, other: Path, resumed: Path, step: int) -> list[str]:
        expected = end(whole)
        places = list(differences(expected, end(other, resumed)))
        if step == expected["global_step"]:
            places = [each for each in places if not each.startswith(BOOKKEEPING)]
        return places

    return found


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Places where two checkpoints differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            if key not in one or key not in other:
                yield f"{place}.{key} is there once"
            else:
                yield from differences(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{place}[{index}]")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if not torch.equal(one, other):
            yield place
    elif one != other:
        yield f"{place}: {one} and {other}"


def end(run_folder: Path, resumed: Path | None = None) -> dict[str, Any]:
    """What a run's last checkpoint holds, but for the names of its folders; that which it resumed if it was the end."""
    last = run_folder / "checkpoints" / "last.ckpt"
    content = torch.load(last if resumed is None or last.is_file() else resumed, weights_only=True)
    for name, state in content["callbacks"].items():
        if "ModelCheckpoint" in name:
            # The current score is not restored, nor used before the next one.
            for key in [key for key in state if "path" in key or key in ("best_k_models", "current_score")]:
                del state[key]
    return content
