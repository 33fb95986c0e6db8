"""Hiding of Lightning's messages that repeat the output of a run."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

# Patterns of hidden warnings.
_REPEATED = (
    "Checkpoint directory .* exists and is not empty",  # `lock_folder` checks that it is not another run's
    "Experiment logs directory .* exists and is not empty",  # the run's folder, with Hydra's files in it
    "The `srun` command is available on your system but is not used",  # `environment` says what starts the processes
    ".isinstance.treespec, LeafSpec.* is deprecated",  # Lightning's own call
    "Starting from v1.9.0, `tensorboardX` has been removed",
    "It is recommended to use .* sync_dist=True",  # scores are of all processes when they are logged
    "FSDP2-wrapped module .* returned a view tensor",  # no operation changes the outputs of a layer in place
)


@contextmanager
def quiet() -> Generator[None]:
    """Hides Lightning's tips, and warnings without use in a run, inside the context. Other warnings are shown."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in _REPEATED:
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            logger.setLevel(level)
