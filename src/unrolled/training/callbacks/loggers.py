"""Loggers: metrics.csv, and the start of services such as Weights & Biases."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from unrolled.training.configuration.options import ConfigurationError


class MetricsFile(CSVLogger):
    """Writes metrics.csv, with the seconds since the start of the run in each row.

    Args:
        save_dir: folder of the file.
        options: options of Lightning's `CSVLogger`.
    """

    def __init__(self, save_dir: str, **options: Any) -> None:
        super().__init__(save_dir, **options)
        self._start_time = time.monotonic()
        # Lightning removes the file before it writes the first row.
        self._previous_rows = _rows(Path(self.log_dir) / "metrics.csv")

    def continue_from(self, step: int, folder: Path) -> None:
        """Copies the rows of the resumed run.

        Args:
            step: optimizer steps completed at the checkpoint; later rows are left out, since they are logged again.
            folder: folder of the resumed run.
        """
        same = folder.resolve() == Path(self.log_dir).resolve()
        rows = self._previous_rows if same else _rows(folder / "metrics.csv")
        earlier = [row for row in rows if row.get("step", "").isdigit() and int(row["step"]) < step]
        for row in earlier:
            given = {name: value for name, value in row.items() if name != "step" and value != ""}
            self.experiment.log_metrics(given, int(row["step"]))  # pyright: ignore[reportArgumentType] - text as it was
        if earlier:
            self._start_time -= float(earlier[-1].get("seconds") or 0)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Writes one row."""
        super().log_metrics({**metrics, "seconds": round(time.monotonic() - self._start_time, 3)}, step)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def start_loggers(trainer: Trainer) -> None:
    """Starts the loggers of services, so that a missing key or server is reported before training.

    Raises:
        ConfigurationError: a logger cannot start.
    """
    for logger in trainer.loggers:
        if isinstance(logger, (CSVLogger, TensorBoardLogger)):
            continue  # files, which are created with the first value
        try:
            logger.experiment  # noqa: B018 - the access starts the logger  # pyright: ignore[reportUnusedExpression, reportAttributeAccessIssue]
        except Exception as error:  # each service has its own exceptions
            name = type(logger).__name__.removesuffix("Logger").lower()
            hint = "; WANDB_MODE=offline keeps it on this machine" if name == "wandb" else ""
            raise ConfigurationError(f"logger={name}: {error}{hint}") from error
