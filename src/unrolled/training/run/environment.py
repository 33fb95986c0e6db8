"""Detection of SLURM steps and other launchers."""

import logging
import os
from datetime import timedelta

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer

from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.run.ranks import check_by_hand, num_srun_tasks, place, set_address_of_srun
from unrolled.wording import counted

_log = logging.getLogger(__name__)


class SLURMStepEnvironment(SLURMEnvironment):
    """Environment of the tasks of one SLURM job step, started together by `srun`.

    Lightning's own class uses the job's number of tasks instead of the step's, and requeues the job by default.
    """

    def __init__(self) -> None:
        super().__init__(auto_requeue=False)
        set_address_of_srun()

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


def cluster_environment(num_nodes: int = 1) -> ClusterEnvironment | None:
    """Returns the cluster environment for the Trainer; None outside of SLURM, where Lightning detects it.

    Args:
        num_nodes: the Trainer's; several need a launcher, or a start on each of them.

    Raises:
        ConfigurationError: nothing tells the nodes apart.
    """
    found = next((kind for kind in (TorchElasticEnvironment, LSFEnvironment, MPIEnvironment) if kind.detect()), None)
    if found is None and num_srun_tasks() <= 1 and num_nodes > 1:
        check_by_hand(num_nodes)
    if not any(name in os.environ for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS")):
        return None
    if found is not None:  # each may be used within SLURM
        return found()
    return SLURMStepEnvironment() if num_srun_tasks() > 1 else LightningEnvironment()


def starts_others(trainer: Trainer) -> bool:
    """Whether the run itself starts the further processes of this node."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    alone = place() is None and "LOCAL_RANK" not in os.environ
    return alone and trainer.world_size > 1 and isinstance(environment, LightningEnvironment)


def check_processes(trainer: Trainer) -> None:
    """Checks that the Trainer's number of processes is that of the launcher.

    Raises:
        ConfigurationError: the numbers differ.
    """
    wanted, here = trainer.num_devices * trainer.num_nodes, place()
    if here is not None and wanted != here.world_size:
        raise ConfigurationError(
            f"trainer: {here.started_by} started {counted(here.world_size, 'process', 'processes')}, and "
            f"trainer.devices × trainer.num_nodes is {wanted}; make them equal, for example trainer=ddp "
            f"trainer.devices={here.world_size}, or start one process"
        )
    allotted = os.environ.get("SLURM_NTASKS", "1")
    if here is None and allotted != "1" and trainer.is_global_zero:
        _log.info("SLURM_NTASKS=%s is ignored: this process was not started by srun and runs alone", allotted)


def set_timeout(trainer: Trainer, seconds: float) -> None:
    """Sets how long a process waits for the others.

    Raises:
        ConfigurationError: not more than 0 seconds.
    """
    if not seconds > 0:
        raise ConfigurationError(f"timeout={seconds}: must be more than 0 seconds")
    if hasattr(trainer.strategy, "_timeout"):
        trainer.strategy._timeout = timedelta(seconds=seconds)  # pyright: ignore - there is no public way
