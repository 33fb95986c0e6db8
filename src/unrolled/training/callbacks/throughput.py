"""How fast a training run reads its data."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from unrolled.training.console.terminal import leave_out
from unrolled.wording import article


class Throughput(Callback):
    """Logs `<unit>s_per_second`: valid steps of the training batches over all processes, without validation time.

    Counted from `batch.lengths` where that tensor lives; the count is read, and summed over processes, every
    `log_every_n_steps` steps of the Trainer and at the end, so that no other step waits for the device. The clock runs
    through all of training, and stands still from the start of a validation to the start of the next batch.

    After (and during) training, for a summary: `total` units read since training started, `seconds` it took, `rate`.
    A resumed run starts at zero. Where batches have no `lengths` it does nothing, and says so once.

    Args:
        unit: what a step of a sequence is; "character" logs `characters_per_second`.
    """

    def __init__(self, unit: str = "character") -> None:
        self.unit = unit
        self._counts = True
        self._reset()

    @property
    def rate(self) -> float:
        """Units per second over the whole run so far."""
        return self.total / self.seconds if self.seconds else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()
        self._read_at = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        lengths = getattr(batch, "lengths", None)
        if lengths is None:
            if self._counts:
                leave_out(self, f"{article(type(batch).__name__)} has no lengths to be counted")
            self._counts = False
            return
        counted = lengths.sum()
        self._pending = counted if self._pending is None else self._pending + counted
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
        # Lightning's loggers listen at these steps alone, and each is met once for every accumulated batch.
        if trainer.global_step % every == 0 and trainer.global_step != self._read_at:
            self._read_at = trainer.global_step
            pl_module.log(f"{self.unit}s_per_second", self._read(), prog_bar=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read()
        self._since = None

    def _reset(self) -> None:
        self.total = 0
        self.seconds = 0.0
        self._pending: Tensor | None = None  # units not read yet, on the device
        self._unread = 0.0  # the seconds that belong to them
        self._since: float | None = None
        self._read_at = -1

    def _pause(self) -> None:
        if self._since is not None:
            self._unread += time.perf_counter() - self._since
        self._since = None

    def _read(self) -> float:
        """Takes what is pending into the totals; its rate in units per second. All processes come here together."""
        if self._pending is None:
            return 0.0
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self._pending)
        units = int(self._pending)  # waits for the device, so that the clock has seen the work
        self._pause()
        self._since = time.perf_counter()
        seconds, self._unread, self._pending = self._unread, 0.0, None
        self.total += units
        self.seconds += seconds
        return units / seconds if seconds else 0.0
