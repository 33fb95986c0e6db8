"""A launcher that sends the jobs of a sweep to SLURM, through submitit."""

import getpass
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from unrolled.training.configuration.quoting import quote_value
from unrolled.training.run.records import FAILED, REFUSED, RUNNING, JobRecord, record_of
from unrolled.training.run.requeue import job_fields
from unrolled.training.run.sweep_command import RECORDS, hydra_config_of
from unrolled.training.run.sweeps import Start, Sweep
from unrolled.wording import counted

LOGS = f"{RECORDS}/slurm"  # in the folder of a sweep: batch scripts and logs of the jobs
_POLL = 2.0  # seconds between two questions to SLURM
_FILE_SYSTEM = 60.0  # seconds in which another machine sees what a job has written


class Sent(NamedTuple):
    """A job in SLURM's queue, and its record."""

    number: str  # SLURM's: 77, or 77_3 in an array
    record: Path


class SLURMLauncher(Launcher):
    """Sends jobs to SLURM, as one job array, and waits for their end.

    submitit writes the batch script and starts the processes, each of which is replaced by the command of its run.
    SLURM's signals therefore reach the run itself, which saves its state and requeues its own job; submitit's
    requeueing is not used. While this process waits, a signal ends it and leaves the jobs in the queue. The sweep
    waits for them again when it is resumed.

    Args:
        requeue: adds `requeue=true` to the runs.
        warning: seconds before the time limit at which a run is warned; enough for a step, a validation and a save.
        time: limit of a job in minutes, or as text for sbatch: `1-12:00:00`.
        nodes: of each job; None for `trainer.num_nodes`.
        ntasks_per_node: processes on each node; None for `trainer.devices`, if that is a number, else 1.
        additional_parameters: further options of sbatch by their long names, such as `reservation`.
        options: other parameters of `submitit.SlurmExecutor`, such as `partition` and `gpus_per_node`.
    """

    def __init__(
        self,
        *,
        requeue: bool = True,
        warning: int = 300,
        time: int | str = 60,
        nodes: int | None = None,
        ntasks_per_node: int | None = None,
        additional_parameters: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.requeue, self.warning, self.time = requeue, warning, time
        self.nodes, self.ntasks_per_node = nodes, ntasks_per_node
        self.additional_parameters = _plain(additional_parameters or {})
        self.options = {name: _plain(value) for name, value in options.items() if value is not None}
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Sends the jobs that have not finished before, and waits for all. Called by Hydra after `setup`."""
        if self.config is None or self.hydra_context is None:
            raise RuntimeError("Hydra calls setup before launch")
        sweep = Sweep.load(Path(str(self.config.hydra.sweep.dir)))
        queued = _queued()
        sent: list[Sent] = []
        starts: list[Start] = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            record = record_of(sweep.folder / RECORDS, number)
            before = _note(record).read_text().strip() if _note(record).is_file() else None
            if before is not None and queued is None:
                print(f"job {number} may be in the queue as {before}; squeue does not answer, try again later")
                raise SystemExit(FAILED)
            if before is not None and before in (queued or ()):
                sent.append(Sent(before, record))
                print(f"job {number} is in the queue as {before}", flush=True)
            elif (start := sweep.prepare(number, list(overrides), self._folder(overrides, number))) is None:
                print(f"job {number} has finished before", flush=True)
            else:
                starts.append(start)
        sent += self._send(starts, sweep.folder / LOGS)
        _wait(sweep, sent)
        return [_returned(overrides) for overrides in job_overrides]

    def _send(self, starts: Sequence[Start], folder: Path) -> list[Sent]:
        """Submits jobs, several as one array, and notes SLURM's numbers beside their records."""
        if not starts:
            return []
        try:
            import submitit

            self._check_warning()
            executor = submitit.SlurmExecutor(folder)
            executor.update_parameters(**self._parameters())
            with executor.batch():
                jobs = [executor.submit(os.execvp, "env", self._command(start)) for start in starts]
        except (ImportError, RuntimeError, TypeError, ValueError, OSError) as error:
            missing = "submitit is missing: pip install submitit" if isinstance(error, ImportError) else str(error)
            _refuse(starts, missing)
            return []
        sent = [Sent(job.job_id, start.record) for job, start in zip(jobs, starts, strict=True)]
        for (number, record), job in zip(sent, jobs, strict=True):
            _note(record).write_text(f"{number}\n")
            print(f"job {record.stem} is in the queue as {number}; log: {job.paths.stdout}", flush=True)
        return sent

    def _check_warning(self) -> None:
        limit = self.time
        if isinstance(limit, int) and self.warning >= 60 * limit:
            raise ValueError(
                f"hydra.launcher.warning={self.warning}: a job of {counted(limit, 'minute')} would be warned at its "
                f"start; give fewer than {60 * limit} seconds, or more time: hydra.launcher.time=…"
            )

    def _parameters(self) -> dict[str, Any]:
        """Returns the parameters for submitit."""
        trainer = self.config.trainer if self.config is not None and "trainer" in self.config else {}
        devices = trainer.get("devices", 1)
        return {
            "job_name": "unrolled",
            "stderr_to_stdout": True,
            "time": self.time,
            "nodes": self.nodes or trainer.get("num_nodes", 1),
            "ntasks_per_node": self.ntasks_per_node or (devices if isinstance(devices, int) and devices > 0 else 1),
            **self.options,
            "additional_parameters": {
                "signal": f"USR1@{self.warning}",  # in place of submitit's own
                **({"requeue": True} if self.requeue else {}),
                **self.additional_parameters,
            },
        }

    def _command(self, start: Start) -> list[str]:
        """Returns what replaces a process of a job: env, which sets variables and starts the command."""
        variables = [f"{name}={value}" for name, value in start.environment().items()]
        trains = self.config is not None and "requeue" in self.config  # evaluate.py doesn't
        given = any(argument.startswith("requeue=") for argument in start.command)
        return ["env", *variables, *start.command, *(["requeue=true"] if self.requeue and trains and not given else [])]

    def _folder(self, overrides: Sequence[str], number: int) -> Path:
        """Returns the folder of the run of a job, as Hydra's own launcher would choose it."""
        if self.config is None or self.hydra_context is None:
            raise RuntimeError("Hydra calls setup before launch")
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        with hydra_config_of(config):
            return Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)


def _refuse(starts: Sequence[Start], message: str) -> None:
    """Records that SLURM took none of the jobs."""
    lines = [line.removeprefix("sbatch: error: ") for line in message.strip().splitlines() if line.strip()]
    error = f"hydra/launcher=slurm: {lines[0] if lines else 'sbatch failed'}"
    for start in starts:
        replace(JobRecord.read(start.record), state=REFUSED, error=error).write(start.record)


def _wait(sweep: Sweep, sent: Sequence[Sent]) -> None:
    """Waits until all jobs have left the queue, and completes the record of each."""
    waiting = list(sent)
    try:
        while waiting:
            queued = _queued()
            for job in [] if queued is None else [job for job in waiting if job.number not in queued]:
                status = _status(job.number)
                _wait_for_record(job.record, status)
                sweep.ended(job.record, status)
                waiting.remove(job)
                print(f"job {job.record.stem} ({job.number}): {JobRecord.read(job.record).state}", flush=True)
            if waiting:
                sleep(_POLL)
    except SystemExit:
        numbers = " ".join(job.number for job in waiting)
        resume = f"-m resume={quote_value(str(sweep.folder))}"
        print(f"{numbers}: still in the queue; wait for them with {resume}, or end them with scancel", file=sys.stderr)
        raise


def _queued() -> set[str] | None:
    """Returns the numbers of this user's jobs that wait or run; None if SLURM does not answer."""
    command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(done.stdout.split()) if done.returncode == 0 else None


def _status(number: str) -> int:
    """Returns the exit status of a job, negative for a signal; 1 if SLURM does not know it any more."""
    status, _, killed = job_fields(number).get("ExitCode", "1:0").partition(":")
    return -int(killed) if killed not in ("", "0") else int(status)


def _wait_for_record(record: Path, status: int) -> None:
    """Waits until this machine sees what a job wrote on another one before it ended well."""
    deadline = monotonic() + _FILE_SYSTEM
    while status == 0 and JobRecord.read(record).state == RUNNING and monotonic() < deadline:
        list(record.parent.iterdir())  # lets a network file system look again
        sleep(1)


def _note(record: Path) -> Path:
    """Returns the file with SLURM's number of a job."""
    return record.with_suffix(".slurm")


def _returned(overrides: Sequence[str]) -> JobReturn:
    """Returns what Hydra expects of a job that was run; the record has the results."""
    return JobReturn(overrides=list(filter_overrides(overrides)), status=JobStatus.COMPLETED)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
