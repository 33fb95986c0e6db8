"""Numbers over time in files of the run's folder."""

import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from unrolled.training.options import ConfigurationError


class MetricsFile(CSVLogger):
    """metrics.csv, each row with the seconds that have passed since the run was set up.

    Args:
        save_dir: folder of the file.
        options: those of Lightning's `CSVLogger`.
    """

    def __init__(self, save_dir: str, **options: Any) -> None:
        super().__init__(save_dir, **options)
        self._began = time.monotonic()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """One row."""
        super().log_metrics({**metrics, "seconds": round(time.monotonic() - self._began, 3)}, step)


def open_loggers(trainer: Trainer) -> None:
    """Lets loggers of services begin, so that a missing key or server is known before anything is computed.

    Raises:
        ConfigurationError: what such a logger says.
    """
    for logger in trainer.loggers:
        if isinstance(logger, (CSVLogger, TensorBoardLogger)):
            continue  # files, which begin with their first number
        try:
            logger.experiment  # noqa: B018 - begins when it is asked for  # pyright: ignore
        except Exception as error:  # each service has its own
            name = type(logger).__name__.removesuffix("Logger").lower()
            hint = "; WANDB_MODE=offline keeps it on this machine" if name == "wandb" else ""
            raise ConfigurationError(f"logger={name}: {error}{hint}") from error
