"""Rank 0 requeues a job that is warned or preempted, once, and no other job."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from unrolled.training.run.requeue import hold_signals, requeue_when_interrupted

RUNNING = "JobId=77 JobState=RUNNING Reason=None PreemptTime={}"
PREEMPTED = RUNNING.format("2026-11-28T13:30:13")
CANCELLED = "JobId=77 JobState=CANCELLED Reason=None PreemptTime=None"
Scontrol = Callable[..., Path]


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scontrol:
    """A program in the place of SLURM's, which prints what SLURM knows of a job and notes what it was asked."""

    def made(job: str = RUNNING.format("None"), status: int = 0) -> Path:
        noted = tmp_path / "noted"
        program = tmp_path / "scontrol"
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {noted}\n[ "$1" = show ] && echo "{job}" && exit 0\n'
            f'echo "Requested operation is presently disabled" >&2; exit {status}\n'
        )
        program.chmod(0o755)
        return noted

    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return made


def requeued(noted: Path) -> list[str]:
    lines = noted.read_text().splitlines() if noted.exists() else []
    return [line for line in lines if line.startswith("requeue ")]


def interrupt(number: int, *, training: bool) -> None:
    """Does what a signal does to a run."""
    if training:  # as `Interruption` ends it
        raise SystemExit(128 + number)
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "job", "expected"),
    [
        (signal.SIGUSR1, RUNNING.format("None"), ["requeue 77"]),
        (signal.SIGTERM, PREEMPTED, ["requeue 77"]),
        (signal.SIGTERM, RUNNING.format("None"), []),  # of a person, or of the time limit
        (signal.SIGTERM, CANCELLED, []),
        (signal.SIGTERM, CANCELLED.replace("=None", "=2026-11-28T13:30:13"), []),  # preempted earlier
        (signal.SIGINT, PREEMPTED, []),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_which_signals_requeue_a_job(
    scontrol: Scontrol, number: signal.Signals, job: str, expected: list[str], training: bool
) -> None:
    noted = scontrol(job)
    if number is signal.SIGINT and not training:
        pytest.skip("Python raises KeyboardInterrupt")
    before = [signal.getsignal(each) for each in (signal.SIGUSR1, signal.SIGTERM)]

    with pytest.raises(SystemExit) as end, requeue_when_interrupted(Path("run"), wanted=True, first=True):
        interrupt(number, training=training)

    assert end.value.code == 128 + number
    assert requeued(noted) == expected
    assert [signal.getsignal(each) for each in (signal.SIGUSR1, signal.SIGTERM)] == before


def test_a_task_of_an_array_requeues_itself_alone(scontrol: Scontrol, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = scontrol()
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")

    with pytest.raises(SystemExit), requeue_when_interrupted(Path("run"), wanted=True, first=True):
        os.kill(os.getpid(), signal.SIGUSR1)

    assert requeued(noted) == ["requeue 70_3"]


def test_other_ranks_leave_the_requeue_to_rank_0(scontrol: Scontrol) -> None:
    noted = scontrol()

    with requeue_when_interrupted(Path("run"), wanted=True, first=False):
        interrupt(signal.SIGUSR1, training=False)  # rank 0 may be waiting for this process: it goes on
    with pytest.raises(SystemExit), requeue_when_interrupted(Path("run"), wanted=True, first=False):
        interrupt(signal.SIGUSR1, training=True)

    assert requeued(noted) == []


@pytest.mark.parametrize("wanted", [True, False])
def test_nothing_is_requeued_unasked_or_outside_of_slurm(
    scontrol: Scontrol, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    noted = scontrol()
    if wanted:
        monkeypatch.delenv("SLURM_JOB_ID")

    with pytest.raises(SystemExit), requeue_when_interrupted(Path("run"), wanted=wanted, first=True):
        raise SystemExit(128 + signal.SIGUSR1)

    assert requeued(noted) == []


def test_a_job_that_slurm_does_not_requeue_says_so(scontrol: Scontrol, caplog: pytest.LogCaptureFixture) -> None:
    scontrol(status=1)

    with pytest.raises(SystemExit), requeue_when_interrupted(Path("run"), wanted=True, first=True):
        raise SystemExit(128 + signal.SIGUSR1)

    assert "job 77 cannot be requeued (Requested operation is presently disabled)" in caplog.text


def test_a_warning_while_a_run_starts_is_held_until_it_can_requeue(scontrol: Scontrol) -> None:
    noted = scontrol()
    hold_signals(["task=char_lm", "requeue=true"])
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # only this thread holds it back

    with pytest.raises(SystemExit) as end, requeue_when_interrupted(Path("run"), wanted=True, first=True):
        pass

    assert end.value.code == 128 + signal.SIGUSR1
    assert requeued(noted) == ["requeue 77"]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGUSR1, signal.SIGTERM} == set()


def test_nothing_is_held_for_a_sweep(scontrol: Scontrol) -> None:
    """Its own process does not requeue, and has to end."""
    scontrol()
    hold_signals(["-m", "seed=1,2", "requeue=true"])

    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGUSR1, signal.SIGTERM} == set()


@pytest.mark.parametrize("saved", [True, False])
def test_a_job_that_never_gets_to_save_is_not_requeued_for_ever(
    scontrol: Scontrol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    noted = scontrol()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    (tmp_path / "checkpoints").mkdir()
    if saved:
        (tmp_path / "checkpoints" / "last.ckpt").touch()

    with pytest.raises(SystemExit), requeue_when_interrupted(tmp_path, wanted=True, first=True):
        os.kill(os.getpid(), signal.SIGUSR1)

    assert requeued(noted) == (["requeue 77"] if saved else [])
