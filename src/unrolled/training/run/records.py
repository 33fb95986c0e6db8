"""A job of a sweep: one run in a process of its own, with a record in the sweep's folder of what became of it."""

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from unrolled import durable
from unrolled.training.run.ranks import is_first

JOB = "UNROLLED_JOB"  # environment variable: the record of the job that this process runs
PARENT = "UNROLLED_SWEEP_PID"  # environment variable: the process of the sweep, with which its job ends
FAILED, WRONG_INPUT = 1, 2  # exit statuses

RUNNING = "running"  # or killed together with its sweep
COMPLETE = "complete"
PRUNED = "pruned"  # ended early, because its scores were worse than those of other jobs
INTERRUPTED = "interrupted"  # ended by a signal, after it saved its state
BROKEN = "failed"
REFUSED = "refused"  # wrong input, found before the run started
FINISHED = (COMPLETE, PRUNED, BROKEN)  # states that remain when a sweep goes on

_own: list[tuple[Path, FileLock]] = []  # the record and the lock of the job whose rank 0 this process is


@dataclass(frozen=True)
class JobRecord:
    """The record of a job, kept as JSON in `.sweep/NUMBER.json` of the sweep's folder.

    Attributes:
        number: of the job, from 0.
        overrides: of this job, those of the command line and those that differ between the jobs.
        folder: of the run, relative to the sweep's folder.
        fresh: the folder was empty before the job first ran, so that all in it is the job's own.
        state: one of the constants of this module.
        numbers: metrics of a finished run.
        monitor: metric and mode (min or max) of the run's best validation.
        error: first line of the message of a job that did not finish.
    """

    number: int
    overrides: tuple[str, ...]
    folder: str
    fresh: bool = False
    state: str = RUNNING
    numbers: Mapping[str, float] = field(default_factory=dict)
    monitor: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a record."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["overrides"] = tuple(content["overrides"])
        return cls(**content)

    def write(self, path: Path) -> None:
        """Writes the record, as a whole or not at all."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        durable.replace(path, lambda partial: partial.write_text(text, encoding="utf-8"))

    @property
    def score(self) -> float:
        """The best validation score; NaN if the run has none."""
        return self.numbers.get("best_validation", math.nan)


def record_of(records: Path, number: int) -> Path:
    """Returns the path of the record of a job."""
    return records / f"{number}.json"


def job_environment(record: Path) -> dict[str, str]:
    """Returns the environment variables with which a process runs a job and reports to its record.

    A launcher that starts jobs on other machines needs no more than these and `Sweep.command`.
    """
    return {JOB: str(record.resolve())}


def lock_of(record: Path) -> FileLock:
    """Returns the lock that a process holds while it runs a job."""
    return FileLock(record.with_suffix(".lock"), timeout=0)


def begin_job() -> None:
    """Prepares rank 0 of a job: it locks the job, and ends as after SIGTERM when the sweep's process is gone.

    If another process runs the job, this one ends.
    """
    path = os.environ.get(JOB)
    if not path or not is_first():
        return
    lock = lock_of(Path(path))
    try:
        lock.acquire()
    except Timeout:
        sys.exit(f"{path}: another process runs this job of the sweep")
    except NotImplementedError:  # a file system without locks
        pass
    _own.append((Path(path), lock))
    parent = os.getppid()
    if os.environ.get(PARENT) == str(parent):
        threading.Thread(target=_end_with, args=(parent,), daemon=True, name="sweep-observer").start()


def job_succeeded(numbers: Mapping[str, float], folder: Path, monitor: Mapping[str, str]) -> None:
    """Records that the run of this process finished; does nothing outside a sweep.

    Args:
        numbers: test metrics.
        folder: of the run.
        monitor: metric and mode of the best validation.
    """
    if not _own:
        return
    record = _own[0][0]
    path = folder / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    best = summary.get("best_validation")
    validation = {} if best is None else {"best_validation": float(best)}
    state = PRUNED if summary.get("pruned") else COMPLETE
    replace(
        JobRecord.read(record), state=state, numbers={**validation, **numbers}, monitor=dict(monitor), error=""
    ).write(record)


def job_failed(message: str, status: int) -> None:
    """Records that the run of this process failed; does nothing outside a sweep.

    Args:
        message: of the error.
        status: exit status.
    """
    if _own:
        record = _own[0][0]
        state = REFUSED if status == WRONG_INPUT else BROKEN
        first = message.strip().splitlines()[0] if message.strip() else "no message"
        replace(JobRecord.read(record), state=state, error=first).write(record)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    with suppress(OSError):
        print("the sweep's process is gone; this run ends as after SIGTERM", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
