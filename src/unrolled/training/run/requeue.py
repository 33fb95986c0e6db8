"""Requeueing of SLURM jobs: a run that is warned or preempted saves its state, requeues its job and goes on later."""

import logging
import os
import signal
import subprocess
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from unrolled.training.configuration.launch import slurm_job
from unrolled.training.configuration.run_dir import files_of_run, is_sweep, starts_run

_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
_log = logging.getLogger(__name__)


def hold_signals(arguments: Sequence[str]) -> None:
    """Holds signals back while a run that may requeue its job starts; `requeue_when_interrupted` lets them through.

    Args:
        arguments: those of the command.
    """
    if "requeue=true" in arguments and slurm_job() is not None and starts_run(arguments) and not is_sweep(arguments):
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


@contextmanager
def requeue_when_interrupted(folder: Path, *, wanted: bool, first: bool) -> Generator[None]:
    """Requeues this SLURM job if a warning or a preemption ends the body of the context.

    The warning is SIGUSR1 (`sbatch --signal=USR1@300`). A preemption is SIGTERM from a partition with a grace time:
    SLURM doesn't requeue a job that ends within that time. SIGTERM from scancel requeues nothing. During training,
    signals wait for the end of a step (see `Interruption`). Before and after it, they end the run at once.

    Args:
        folder: of the run.
        wanted: the option `requeue`.
        first: this process is rank 0, which requeues for all; all others have saved their states before.
    """
    job = slurm_job()
    if wanted and first and job is None:
        _log.info("requeue=true is ignored: this is not a SLURM job")
    active = wanted and job is not None
    handlers = _handlers(first) if active else {}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        yield
    except SystemExit as end:
        if active and first and job is not None and _is_to_go_on(job, end.code, folder):
            _requeue(job)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_preempted(job: str) -> bool:
    """Whether SLURM is ending a running job in favor of another one. A cancelled job is no longer running."""
    fields = job_fields(job)
    return fields.get("JobState") == "RUNNING" and fields.get("PreemptTime", "None") != "None"


def job_fields(job: str) -> dict[str, str]:
    """Returns what SLURM knows of a job, such as its JobState; nothing if it does not answer."""
    words = scontrol("show", "job", "--oneliner", job).stdout.split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def scontrol(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs SLURM's program; where it is missing or does not answer, the status is 1."""
    command = ["scontrol", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _is_to_go_on(job: str, status: object, folder: Path) -> bool:
    if status == 128 + signal.SIGTERM:
        return is_preempted(job)
    if status != 128 + signal.SIGUSR1:
        return False
    if os.environ.get("SLURM_RESTART_COUNT", "0") != "0" and not files_of_run(folder):
        _log.warning(
            "job %s is not requeued: it was warned twice before it saved anything; its time limit must be longer "
            "than the time of its warning, --signal=USR1@SECONDS",
            job,
        )
        return False
    return True


def _requeue(job: str) -> None:
    done = scontrol("requeue", job)
    if done.returncode == 0:
        _log.info("job %s is requeued, and will go on from its last checkpoint", job)
    else:
        reason = done.stderr.strip() or f"scontrol ended with status {done.returncode}"
        _log.warning("job %s cannot be requeued (%s); submit it again to go on", job, reason)


def _handlers(first: bool) -> dict[int, Callable[[int, FrameType | None], None]]:
    """Returns the signal handlers for the time before and after training."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def leave_to_rank_0(number: int, frame: FrameType | None) -> None:
        """Does nothing: rank 0 may be waiting for this process before it can requeue the job, which ends both."""

    return dict.fromkeys(_SIGNALS, end) if first else {signal.SIGUSR1: leave_to_rank_0}
