"""What a run keeps off the terminal while it lasts: Lightning's tips, and what its own report prints already."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

# What Lightning warns of and a run of ours needn't: patterns of messages.
_REPEATED = (
    "Checkpoint directory .* exists and is not empty",  # no other run's: see `owned`
    "Experiment logs directory .* exists and is not empty",  # it is the run's folder, with Hydra's notes in it
    ".isinstance.treespec, LeafSpec.* is deprecated",  # Lightning's own call
    "Starting from v1.9.0, `tensorboardX` has been removed",
)


@contextmanager
def quiet() -> Generator[None]:
    """Leaves out Lightning's tips and what our own report prints already, while a run lasts; other warnings stay."""
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
