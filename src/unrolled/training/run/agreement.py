"""One configuration on all ranks: rank 0 passes its own to the others, and all compare before the first step."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from unrolled.training.callbacks.gathering import gather_from_all_ranks
from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.run.environment import starts_others
from unrolled.training.run.job import Job, check_same, first_difference, fix
from unrolled.training.run.ranks import STARTED_BY, is_first, place, publish, receive


def joined(config: DictConfig) -> DictConfig:
    """Returns the configuration that a run uses: that of rank 0.

    Raises:
        ConfigurationError: this process has composed another one.
    """
    here = place()
    if here is None or is_first():
        return config
    fix(config)
    other = Job.from_text(receive()).config
    check_same(config, other)
    return other


def share(config: DictConfig, trainer: Trainer) -> None:
    """Passes the configuration to the other processes of a run, before they are started or awaited."""
    environment: Any = getattr(trainer.strategy, "cluster_environment", None)
    if starts_others(trainer):
        first = environment.node_rank() * trainer.num_devices
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
        os.environ["NODE_RANK"] = str(environment.node_rank())
        os.environ[STARTED_BY] = f"{os.getpid()}:{first}:{trainer.world_size}"
    if is_first():
        publish(Job.of(config, sys.argv[1:]).to_text())


class Agreement(Callback):
    """Ends a run whose processes do not have the same configuration, before its first step.

    Args:
        values: of the configuration, by dotted key.
        versions: of the packages that it is run with.
    """

    def __init__(self, values: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        self._values = {**values, **{f"the version of {name}": version for name, version in versions.items()}}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compares.

        Raises:
            ConfigurationError: on all processes; names the first rank that differs from rank 0, and what differs.
        """
        found = gather_from_all_ranks([self._values])
        for rank, values in enumerate(found):
            if difference := first_difference(values, found[0], f"rank {rank}"):
                raise ConfigurationError(difference)
