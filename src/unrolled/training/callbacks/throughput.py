"""Training throughput."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from unrolled.training.console.terminal import warn_disabled
from unrolled.wording import article


class Throughput(Callback):
    """Logs `<unit>s_per_second`: valid steps of the training batches over all processes, without validation time.

    Sums `batch.lengths` on its device. The sum is read, and added over processes, every `log_every_n_steps` steps of
    the Trainer and at the end of training, so that no other step waits for the device. The clock is paused from the
    start of a validation to the start of the next batch.

    For a summary, `total` is the number of units since training started, `seconds` their time and `rate` the quotient.
    A resumed run starts at zero. If batches have no `lengths`, the callback logs one warning and does nothing.

    Args:
        unit: name of a step of a sequence; "character" logs `characters_per_second`.
    """

    def __init__(self, unit: str = "character") -> None:
        self.unit = unit
        self._enabled = True
        self._reset()

    @property
    def rate(self) -> float:
        """Units per second over the whole run so far."""
        return self.total / self.seconds if self.seconds else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()
        self._last_read_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._clock_start is None:
            self._clock_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        lengths = getattr(batch, "lengths", None)
        if lengths is None:
            if self._enabled:
                warn_disabled(self, f"{article(type(batch).__name__)} has no lengths")
            self._enabled = False
            return
        counted = lengths.sum()
        self._pending_units = counted if self._pending_units is None else self._pending_units + counted
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
        # Lightning's loggers log only these steps, and each step occurs once for every accumulated batch.
        if trainer.global_step % every == 0 and trainer.global_step != self._last_read_step:
            self._last_read_step = trainer.global_step
            pl_module.log(f"{self.unit}s_per_second", self._read(), prog_bar=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read()
        self._clock_start = None

    def _reset(self) -> None:
        self.total = 0
        self.seconds = 0.0
        self._pending_units: Tensor | None = None  # on the device, not added to `total` yet
        self._pending_seconds = 0.0  # their time
        self._clock_start: float | None = None
        self._last_read_step = -1

    def _pause(self) -> None:
        if self._clock_start is not None:
            self._pending_seconds += time.perf_counter() - self._clock_start
        self._clock_start = None

    def _read(self) -> float:
        """Adds the pending units to the totals and returns their rate in units per second. A collective operation."""
        if self._pending_units is None:
            return 0.0
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self._pending_units)
        units = int(self._pending_units)  # waits for the device, so that the clock includes its work
        self._pause()
        self._clock_start = time.perf_counter()
        seconds, self._pending_seconds, self._pending_units = self._pending_seconds, 0.0, None
        self.total += units
        self.seconds += seconds
        return units / seconds if seconds else 0.0
