"""Trains with processes that are killed at a chosen place, for test_killed_runs: killed_runs.py FOLDER, jobs as JSON.

Each job is a run in a folder of its own: {"name": …, "overrides": […], "ranks": 2, "kill": [place, count, rank]}. All
processes of a run are forked from this one, so that torch and Lightning are imported once. One of them kills itself at
the place; the launcher's part, to end the others, is played here. Prints a line for each job: its name, the
step that it begins after, and its exit statuses.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

import unrolled.durable
from unrolled.training.callbacks.interruption import Interruption
from unrolled.training.callbacks.last import LastCheckpoint
from unrolled.training.configuration.overrides import config_folder, forced
from unrolled.training.run import processes
from unrolled.training.run.runner import run
from unrolled.training.tasks.base import SequenceTask
from unrolled.training.tasks.evaluation import Evaluation

SECONDS = 300  # for a run; the machine may be busy

# Where a run can be killed: a class or module, and its function that is called there.
PLACES: dict[str, tuple[Any, str]] = {
    "accumulation": (SequenceTask, "on_after_backward"),
    "step": (Interruption, "on_train_batch_end"),
    "epoch": (LastCheckpoint, "on_train_epoch_end"),
    "validation": (Evaluation, "add"),
    "save": (unrolled.durable, "check"),  # the file is written, and not yet in its place
    "saved": (unrolled.durable, "_sync_folder"),  # it has just replaced the one before
}


def kill_at(place: str, count: int) -> None:
    """Lets this process kill itself when the place is reached for the `count`th time."""
    owner, name = PLACES[place]
    before: Callable[..., Any] = getattr(owner, name)
    left = [count]

    def reached(*arguments: Any, **options: Any) -> Any:
        left[0] -= place != "save" or bool(options.get("required"))
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return before(*arguments, **options)

    setattr(owner, name, reached)


def train(folder: Path, job: dict[str, Any], rank: int, port: int) -> None:
    """Trains as one process of a job."""
    ranks = job["ranks"]
    sys.stdout.flush()
    log = os.open(folder / f"{job['name']}-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    torch.set_num_threads(1)
    if ranks > 1:  # as srun would start it
        processes.PARENT = os.getppid()  # imported before the fork
        job_of_slurm = {"JOB_ID": 77, "NTASKS": ranks, "NNODES": 1, "STEP_ID": 0, "STEP_NUM_TASKS": ranks}
        numbers = {**job_of_slurm, "NODEID": 0, "PROCID": rank, "LOCALID": rank}
        os.environ.update({f"SLURM_{name}": str(number) for name, number in numbers.items()})
        os.environ.update(SLURM_JOB_NODELIST="127.0.0.1", SLURM_STEP_NODELIST="127.0.0.1", MASTER_PORT=str(port))
    if job.get("kill") and job["kill"][2] in (rank, None):
        kill_at(*job["kill"][:2])
    trainer = ["trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={ranks}"] if ranks > 1 else ["trainer=cpu"]
    overrides = [*trainer, f"run_dir={folder / job['name']}", *job["overrides"]]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", list(map(forced, overrides)))
    run(config)


def statuses(folder: Path, job: dict[str, Any]) -> list[int]:
    """Runs the processes of a job, and returns their exit statuses; negative for a signal."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    children: dict[int, int] = {}
    for rank in range(job["ranks"]):
        child = os.fork()
        if child == 0:
            try:
                train(folder, job, rank, port)
            except BaseException as error:  # reported by the test, from the log
                import traceback

                traceback.print_exc()
                os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)
            sys.stdout.flush()
            os._exit(0)
        children[child] = rank
    ended: dict[int, int] = {}
    deadline = time.monotonic() + SECONDS
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child in children:
            ended[children.pop(child)] = os.waitstatus_to_exitcode(status)
        failed = any(ended.values()) or time.monotonic() > deadline
        for left in list(children) if failed else ():
            os.kill(left, signal.SIGKILL)
        time.sleep(0.01)
    return [ended[rank] for rank in range(job["ranks"])]


def main(folder: Path, jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        last = folder / job["name"] / "checkpoints" / "last.ckpt"
        step = torch.load(last, weights_only=True)["global_step"] if last.is_file() else 0
        print(json.dumps([job["name"], step, statuses(folder, job)]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
