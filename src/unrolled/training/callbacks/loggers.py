"""Numbers over time in files of the run's folder."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from unrolled.training.configuration.options import ConfigurationError


class MetricsFile(CSVLogger):
    """metrics.csv, each row with the seconds that have passed since the run was set up.

    Args:
        save_dir: folder of the file.
        options: those of Lightning's `CSVLogger`.
    """

    def __init__(self, save_dir: str, **options: Any) -> None:
        super().__init__(save_dir, **options)
        self._began = time.monotonic()
        # Lightning removes the file before it writes the first row.
        self._before = _rows(Path(self.log_dir) / "metrics.csv")

    def go_on(self, step: int, folder: Path) -> None:
        """Begins with the rows of the run that is resumed.

        Args:
            step: optimizer steps that it had done; what it measured later is measured again.
            folder: of that run.
        """
        same = folder.resolve() == Path(self.log_dir).resolve()
        rows = self._before if same else _rows(folder / "metrics.csv")
        kept = [row for row in rows if row.get("step", "").isdigit() and int(row["step"]) < step]
        for row in kept:
            given = {name: value for name, value in row.items() if name != "step" and value != ""}
            self.experiment.log_metrics(given, int(row["step"]))  # pyright: ignore[reportArgumentType] - as they stood
        if kept:
            self._began -= float(kept[-1].get("seconds") or 0)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """One row."""
        super().log_metrics({**metrics, "seconds": round(time.monotonic() - self._began, 3)}, step)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
