"""Who started this process, and with how many others: what Lightning guesses, known for certain under SLURM."""

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


class StepEnvironment(SLURMEnvironment):
    """The tasks of one step of a SLURM job, which `srun` has started all at once.

    Lightning's own takes the numbers of the job for those of the step, and asks SLURM to start the job again unasked.
    """

    def __init__(self) -> None:
        super().__init__(auto_requeue=False)
        if "SLURM_STEP_NODELIST" in os.environ:
            nodes = os.environ["SLURM_STEP_NODELIST"]
            os.environ.setdefault("MASTER_ADDR", self.resolve_root_node_address(nodes))

    def world_size(self) -> int:
        return tasks_of_step()

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Nothing: `check_processes` compares with the step, which may be smaller than the job."""

    @staticmethod
    def _validate_srun_used() -> None:
        """Known from the step's own variables."""

    @staticmethod
    def _validate_srun_variables() -> None:
        """Those of the job, which a step may differ from."""


def tasks_of_step() -> int:
    """How many processes `srun` has started beside this one, itself included; 0 where it has started none.

    The shell of an allocation (`salloc`) and a batch script (`sbatch`) are none of the tasks that their job may have.
    """
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    return int(tasks) if tasks.isdigit() else 0


def cluster_environment() -> ClusterEnvironment | None:
    """What the Trainer is to take for the one who starts processes; None leaves it to Lightning, outside of SLURM."""
    if not any(name in os.environ for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS")):
        return None
    for kind in (TorchElasticEnvironment, LSFEnvironment, MPIEnvironment):  # each may be used within SLURM
        if kind.detect():
            return kind()
    return StepEnvironment() if tasks_of_step() > 1 else LightningEnvironment()


def check_processes(trainer: Trainer) -> None:
    """Compares what a Trainer wants with what was started.

    Raises:
        ConfigurationError: another number of processes than `srun` has started.
    """
    wanted, tasks = trainer.num_devices * trainer.num_nodes, tasks_of_step()
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if tasks > 1 and wanted != tasks and not isinstance(environment, TorchElasticEnvironment):
        raise ConfigurationError(
            f"trainer: srun started {tasks} tasks, and trainer.devices × trainer.num_nodes is {wanted}; make them "
            f"equal, for example trainer=ddp trainer.devices={tasks}, or start one: srun --ntasks=1"
        )
    allotted = os.environ.get("SLURM_NTASKS", "1")
    if tasks <= 1 and allotted != "1" and trainer.is_global_zero:
        _log.info("SLURM_NTASKS=%s is ignored: srun did not start this process, which runs by itself", allotted)


def restarted(run_dir: Path) -> str | None:
    """The folder to go on in, where SLURM has started a job again that had got as far as a checkpoint."""
    again = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    return str(run_dir) if again and (run_dir / "checkpoints" / "last.ckpt").is_file() else None


def check_requeue() -> None:
    """What starting again takes.

    Raises:
        ConfigurationError: a folder that is another one each time.
    """
    if HydraConfig.initialized() and not any(o.startswith("hydra.run.dir=") for o in HydraConfig.get().overrides.hydra):
        raise ConfigurationError("requeue=true: the job that is started again has to find its folder; give run_dir=…")
    if _job() is None:
        _log.info("requeue=true is ignored: this is no SLURM job")


@contextmanager
def requeueing(*, wanted: bool) -> Generator[None]:
    """Has SLURM queue this job again where SIGUSR1 has ended what runs within (`sbatch --signal=USR1@90`)."""
    try:
        yield
    except SystemExit as end:
        if wanted and end.code == 128 + signal.SIGUSR1 and (job := _job()) is not None:
            status = subprocess.run(["scontrol", "requeue", job], check=False).returncode
            _log.info("scontrol requeue %s: %s", job, "done" if status == 0 else f"failed with status {status}")
        raise


def _job() -> str | None:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID")
