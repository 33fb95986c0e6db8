"""Detection of SLURM steps and other launchers, and requeue_on_signal of SLURM jobs."""

import logging
import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer

from unrolled.training.configuration.options import ConfigurationError

_log = logging.getLogger(__name__)


class SLURMStepEnvironment(SLURMEnvironment):
    """Environment of the tasks of one SLURM job step, started together by `srun`.

    Lightning's own class uses the job's number of tasks instead of the step's, and requeues the job by default.
    """

    def __init__(self) -> None:
        super().__init__(auto_requeue=False)
        if "SLURM_STEP_NODELIST" in os.environ:
            nodes = os.environ["SLURM_STEP_NODELIST"]
            os.environ.setdefault("MASTER_ADDR", self.resolve_root_node_address(nodes))

    def world_size(self) -> int:
        return num_srun_tasks()

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Does nothing: `check_processes` compares with the step, which may be smaller than the job."""

    @staticmethod
    def _validate_srun_used() -> None:
        """Does nothing: the variables of the step show that srun was used."""

    @staticmethod
    def _validate_srun_variables() -> None:
        """Does nothing: the variables of the job may differ from those of the step."""


def num_srun_tasks() -> int:
    """Returns the number of processes that `srun` started for this step, including this one; 0 without `srun`.

    The shell of an allocation (`salloc`) and a batch script (`sbatch`) do not count as tasks of their job.
    """
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    return int(tasks) if tasks.isdigit() else 0


def cluster_environment() -> ClusterEnvironment | None:
    """Returns the cluster environment for the Trainer; None outside of SLURM, where Lightning detects it."""
    if not any(name in os.environ for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS")):
        return None
    for kind in (TorchElasticEnvironment, LSFEnvironment, MPIEnvironment):  # each may be used within SLURM
        if kind.detect():
            return kind()
    return SLURMStepEnvironment() if num_srun_tasks() > 1 else LightningEnvironment()


def check_processes(trainer: Trainer) -> None:
    """Checks that the Trainer's number of processes is that of `srun`.

    Raises:
        ConfigurationError: the numbers differ.
    """
    wanted, tasks = trainer.num_devices * trainer.num_nodes, num_srun_tasks()
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if tasks > 1 and wanted != tasks and not isinstance(environment, TorchElasticEnvironment):
        raise ConfigurationError(
            f"trainer: srun started {tasks} tasks, and trainer.devices × trainer.num_nodes is {wanted}; make them "
            f"equal, for example trainer=ddp trainer.devices={tasks}, or start one: srun --ntasks=1"
        )
    allotted = os.environ.get("SLURM_NTASKS", "1")
    if tasks <= 1 and allotted != "1" and trainer.is_global_zero:
        _log.info("SLURM_NTASKS=%s is ignored: this process was not started by srun and runs alone", allotted)


def folder_of_requeued_run(run_dir: Path) -> str | None:
    """Returns the folder to resume from if SLURM restarted the job after it saved a checkpoint, else None."""
    again = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    return str(run_dir) if again and (run_dir / "checkpoints" / "last.ckpt").is_file() else None


def check_requeue() -> None:
    """Checks that a requeued job can find its folder.

    Raises:
        ConfigurationError: run_dir is not given, so that each start of the job would use another folder.
    """
    if HydraConfig.initialized() and not any(o.startswith("hydra.run.dir=") for o in HydraConfig.get().overrides.hydra):
        raise ConfigurationError("requeue=true: the requeued job has to find its folder; give run_dir=…")
    if _job_id() is None:
        _log.info("requeue=true is ignored: this is not a SLURM job")


@contextmanager
def requeue_on_signal(*, wanted: bool) -> Generator[None]:
    """Requeues this SLURM job if SIGUSR1 ends the body of the context (`sbatch --signal=USR1@90`)."""
    try:
        yield
    except SystemExit as end:
        if wanted and end.code == 128 + signal.SIGUSR1 and (job := _job_id()) is not None:
            status = subprocess.run(["scontrol", "requeue", job], check=False).returncode
            _log.info("scontrol requeue %s: %s", job, "done" if status == 0 else f"failed with status {status}")
        raise


def _job_id() -> str | None:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID")
