"""A sweep (-m): each job is a process of its own, none ends the others, and a sweep that was killed goes on."""

import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Self

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.configuration.quoting import quote_value
from unrolled.training.configuration.run_dir import SWEEP
from unrolled.training.console.signals import SIGNALS
from unrolled.training.run.optuna_sweeper import check_search
from unrolled.training.run.records import (
    BROKEN,
    FAILED,
    FINISHED,
    INTERRUPTED,
    PARENT,
    REFUSED,
    RUNNING,
    WRONG_INPUT,
    JobRecord,
    job_environment,
    lock_of,
    record_of,
)
from unrolled.training.run.results import show_results, write_results
from unrolled.training.run.search_space import key_of, swept
from unrolled.training.run.study import DATABASE
from unrolled.training.run.sweep_command import RECORDS, SweepCommand, compose_sweep, is_sweep_folder

_processes: set[subprocess.Popen[bytes]] = set()  # of the jobs that this process has started
_received: list[int] = []  # signals


class Start(NamedTuple):
    """What starts a job."""

    record: Path
    command: list[str]

    def environment(self) -> dict[str, str]:
        """Returns the variables that the process needs besides those of this process."""
        return job_environment(self.record)


class Sweep:
    """The jobs of a sweep. All it knows is in its folder, so any process can load it.

    Args:
        folder: of the sweep; each job has a folder of its own below it.
        command: what the sweep was asked for.

    Attributes:
        exit_status: after `running`: 0; 1 if a job failed; 2 if all failures are wrong input.
    """

    def __init__(self, folder: Path, command: SweepCommand) -> None:
        self.folder = folder
        self.command = command
        self.exit_status = 0

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Loads the sweep in a folder."""
        return cls(folder, SweepCommand.read(folder))

    @classmethod
    def begin(cls, name: str, program: Sequence[str], options: Sequence[str], overrides: Sequence[str]) -> Self:
        """Creates a sweep, or goes on with the same one if its folder contains it.

        Args:
            name: the primary configuration, `train` or `evaluate`.
            program: starts a run.
            options: options of the command with dashes, without -m.
            overrides: with several values for what differs between jobs.

        Raises:
            ConfigurationError: the folder contains another sweep, or an option of Hydra is wrong.
        """
        config = compose_sweep(name, options, overrides)
        folder = Path(str(config.hydra.sweep.dir))
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        parsed = OverridesParser.create().parse_overrides([*params, *overrides])
        keys = tuple(dict.fromkeys(map(key_of, swept(parsed))))
        check_search(config, parsed)
        command = SweepCommand(tuple(program), tuple(options), tuple(overrides), keys)
        if is_sweep_folder(folder):
            command.check_same(SweepCommand.read(folder), folder)
        return cls(folder, command)

    @staticmethod
    def is_running() -> bool:
        """Whether Hydra calls this process for a job of a sweep."""
        return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN

    def arguments(self) -> list[str]:
        """Returns the arguments of Hydra: -m, the options, and the overrides with the folder in them."""
        placed = [override for override in self.command.overrides if not override.startswith(f"{SWEEP}=")]
        return ["-m", *self.command.options, *placed, f"{SWEEP}={_quoted(self.folder)}"]

    @contextmanager
    def running(self) -> Generator[None]:
        """Locks the sweep inside the context, passes signals on to its job, and shows the results at the end.

        Raises:
            ConfigurationError: another process runs this sweep.
        """
        records = self.folder / RECORDS
        records.mkdir(parents=True, exist_ok=True)
        lock = FileLock(records / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ConfigurationError(f"run_dir={self.folder}: another process is running this sweep") from None
        except NotImplementedError:  # a file system without locks
            pass
        self.command.write(self.folder)
        handlers = {number: signal.signal(number, _pass_on) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._end()
            lock.release()

    def run_job(self) -> None:
        """Runs the job for which Hydra calls this process, in a process of its own, unless it has finished before."""
        hydra = HydraConfig.get()
        start = self.prepare(hydra.job.num, list(hydra.overrides.task), Path(hydra.runtime.output_dir))
        if start is None:
            print(f"job {hydra.job.num} has finished before", flush=True)
            return
        environment = {**os.environ, **start.environment(), PARENT: str(os.getpid())}
        process = subprocess.Popen(start.command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        _processes.add(process)
        try:
            status = process.wait()
        finally:
            _processes.discard(process)
        self.ended(start.record, status)
        if _received:
            raise SystemExit(128 + _received[0])

    def prepare(self, number: int, overrides: Sequence[str], folder: Path) -> Start | None:
        """Returns what starts a job, or resumes it if it was interrupted; None if it has finished before.

        Args:
            number: of the job.
            overrides: of this job, as Hydra's sweeper gives them.
            folder: of its run.

        Raises:
            ConfigurationError: the record is that of another job.
        """
        record = record_of(self.folder / RECORDS, number)
        inner = os.path.relpath(folder, self.folder)
        job = JobRecord(number, tuple(overrides), inner, fresh=not _has_files(folder))
        given = list(overrides)
        if record.is_file():
            _wait_for(record)
            before = JobRecord.read(record)
            if before.overrides != job.overrides:
                raise ConfigurationError(
                    f"{record}: job {number} was {' '.join(before.overrides)}, and is {' '.join(job.overrides)} now; "
                    "give another folder: run_dir=…"
                )
            if before.state in FINISHED:
                return None
            if before.fresh:  # the folder is this job's own
                given = _resumed(given, folder)
                job = replace(job, fresh=True)
        job.write(record)
        return Start(record, self.command.of_job(given, folder, number))

    def ended(self, record: Path, status: int) -> None:
        """Completes the record of a job whose process has ended, and writes the table.

        Args:
            record: of the job.
            status: exit status of its process; negative: the signal that killed it.
        """
        job = JobRecord.read(record)
        if job.state == RUNNING and not _received:
            number = -status if status < 0 else status - 128
            if number in SIGNALS:
                error = f"ended by {signal.Signals(number).name}; the sweep goes on with it when it is resumed"
                job = replace(job, state=INTERRUPTED, error=error)
            else:
                killed = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
                job = replace(job, state=BROKEN, error=f"its process ended without a message: {killed}")
            job.write(record)
        if job.state == REFUSED:
            _remove_empty(self.folder / job.folder, self.folder)
        write_results(self.folder, self.command.keys, self.jobs())

    def jobs(self) -> list[JobRecord]:
        """Returns the records of all jobs so far, by number."""
        paths = [path for path in (self.folder / RECORDS).glob("*.json") if path.stem.isdigit()]
        return sorted((JobRecord.read(path) for path in paths), key=lambda job: job.number)

    def _end(self) -> None:
        jobs = self.jobs()
        failed = {job.state for job in jobs} & {BROKEN, INTERRUPTED, REFUSED}
        self.exit_status = 0 if not failed else WRONG_INPUT if failed == {REFUSED} else FAILED
        if jobs:
            write_results(self.folder, self.command.keys, jobs)
            show_results(self.folder, self.command.keys, jobs, interrupted=bool(_received))
        if all(job.state == REFUSED for job in jobs):
            _remove_unbegun(self.folder)


def _pass_on(number: int, frame: FrameType | None) -> None:
    """Handles a signal: the running job saves its state and ends, and the sweep with it."""
    _received.append(number)
    for process in _processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
    if not _processes:
        raise SystemExit(128 + number)


def _wait_for(record: Path) -> None:
    """Waits for a job that another process still runs: its sweep was killed, and it is saving its state."""
    lock = lock_of(record)
    with suppress(NotImplementedError):
        try:
            lock.acquire()
        except Timeout:
            print(f"waiting for the process that runs job {record.stem} to end", flush=True)
            lock.acquire(timeout=-1)
        lock.release()


def _resumed(overrides: Sequence[str], folder: Path) -> list[str]:
    """Returns the overrides with which a job goes on; removes what an interrupted job without a checkpoint left."""
    if not any(folder.glob("checkpoints/*.ckpt")):
        shutil.rmtree(folder, ignore_errors=True)
        return list(overrides)
    kept = [override for override in overrides if not override.lstrip("+").startswith(("resume=", "init_from="))]
    return [*kept, "resume=auto"]


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def _remove_empty(folder: Path, above: Path) -> None:
    """Removes a folder and its parents, up to another one, if they contain nothing."""
    while folder != above and folder.is_relative_to(above) and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _remove_unbegun(folder: Path) -> None:
    """Removes the files of a sweep none of whose jobs began, and its folder and the parents if they are empty."""
    shutil.rmtree(folder / RECORDS)
    for name in ("multirun.yaml", DATABASE):
        (folder / name).unlink(missing_ok=True)
    for place in (folder, *list(folder.parents)[:3]):
        if not place.is_dir() or place.resolve() == Path.cwd() or any(place.iterdir()):
            break
        place.rmdir()


def _quoted(folder: Path) -> str:
    return quote_value(str(folder))
