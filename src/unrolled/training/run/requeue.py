"""Requeueing of SLURM jobs: a run that is warned or preempted saves its state, requeues its job and goes on later."""

import logging
import signal
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from unrolled.training.configuration.launch import slurm_job

_log = logging.getLogger(__name__)


@contextmanager
def requeue_when_interrupted(*, wanted: bool, first: bool) -> Generator[None]:
    """Requeues this SLURM job if a warning or a preemption ends the body of the context.

    The warning is SIGUSR1 (`sbatch --signal=USR1@300`). A preemption is SIGTERM from a partition with a grace time:
    SLURM doesn't requeue a job that ends within that time. SIGTERM from scancel requeues nothing. During training,
    signals wait for the end of a step (see `Interruption`). Before and after it, they end the run at once.

    Args:
        wanted: the option `requeue`.
        first: this process is rank 0, which requeues for all; all others have saved their states before.
    """
    job = slurm_job()
    if not wanted or job is None:
        if wanted and first:
            _log.info("requeue=true is ignored: this is not a SLURM job")
        yield
        return
    before = _set_handlers(first)
    try:
        yield
    except SystemExit as end:
        if first and (end.code == 128 + signal.SIGUSR1 or (end.code == 128 + signal.SIGTERM and is_preempted(job))):
            _requeue(job)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_preempted(job: str) -> bool:
    """Whether SLURM is ending a running job in favor of another one. A cancelled job is no longer running."""
    done = scontrol("show", "job", "--oneliner", job)
    fields = dict(word.split("=", 1) for word in done.stdout.split() if "=" in word)
    return fields.get("JobState") == "RUNNING" and fields.get("PreemptTime", "None") != "None"


def _requeue(job: str) -> None:
    done = scontrol("requeue", job)
    if done.returncode == 0:
        _log.info("job %s is requeued, and will go on from its last checkpoint", job)
    else:
        reason = done.stderr.strip() or f"scontrol ended with status {done.returncode}"
        _log.warning("job %s cannot be requeued (%s); submit it again to go on", job, reason)


def scontrol(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs SLURM's program; where it is missing or does not answer, the status is 1."""
    command = ["scontrol", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _set_handlers(first: bool) -> dict[int, Callable[[int, FrameType | None], object] | int | None]:
    """Sets the signal handlers outside of training, and returns those before."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def leave_to_rank_0(number: int, frame: FrameType | None) -> None:
        """Does nothing: rank 0 may be waiting for this process before it can requeue the job, which ends both."""

    chosen = {signal.SIGUSR1: end, signal.SIGTERM: end} if first else {signal.SIGUSR1: leave_to_rank_0}
    return {number: signal.signal(number, handler) for number, handler in chosen.items()}
