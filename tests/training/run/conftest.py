"""Starting the processes of a run as its launchers do."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


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
def is_gone() -> Callable[[int], bool]:
    """Whether no process of a session is left, within half a minute."""

    def gone(group: int) -> bool:
        for _ in range(60):
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.5)
        return False

    return gone


@pytest.fixture
def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


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
