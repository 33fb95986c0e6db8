"""Training throughput, waiting for data, and the efficiency of several processes."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler
from torch import Tensor

from unrolled.training.console.terminal import warn_disabled
from unrolled.wording import article


class _DataClock(PassThroughProfiler):
    """Sums the time in which a process waits for its next batch of training; Lightning names these places."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._begin = 0.0

    def start(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self._begin = time.perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self.seconds += time.perf_counter() - self._begin


class Throughput(Callback):
    """Logs `<unit>s_per_second`: valid steps of the training batches over all processes, without validation time.

    Also logs `data_wait_share`: the share of that time, 0 to 1, in which a process waits for its next batch, as a mean
    over processes. It is not logged if the Trainer has a profiler, which measures the same. With
    `single_process_rate`, it logs `scaling_efficiency`: the rate divided by that of as many independent processes.

    Sums `batch.lengths` on its device. The sum is read, and added over processes, every `log_every_n_steps` steps of
    the Trainer and at the end of training, so that no other step waits for the device. The clock is paused from the
    start of a validation to the start of the next batch.

    For a summary, `total` is the number of units since training started, `seconds` their time and `rate` the quotient.
    `wait_share` is the share of waiting over all that time. A resumed run starts at zero. If batches have no `lengths`,
    the callback logs one warning and does nothing. It costs 3 microseconds a batch on a CPU, and one message between
    processes whenever it logs.

    Args:
        unit: name of a step of a sequence; "character" logs `characters_per_second`.
        single_process_rate: units per second of a run with one process, with the batch that each process has here. The
            summary of such a run has this number.

    Raises:
        ValueError: a rate that is not positive.
    """

    def __init__(self, unit: str = "character", *, single_process_rate: float | None = None) -> None:
        if single_process_rate is not None and not single_process_rate > 0:
            raise ValueError(f"single_process_rate={single_process_rate}: expected units per second, more than 0")
        self.unit = unit
        self.single_process_rate = single_process_rate
        self._data_clock: _DataClock | None = None
        self._enabled = True
        self._reset()

    @property
    def rate(self) -> float:
        """Units per second over the whole run so far."""
        return self.total / self.seconds if self.seconds else 0.0

    @property
    def wait_share(self) -> float:
        """Share of the time of the whole run so far in which processes waited for data, 0 to 1."""
        return self._waited / self.seconds if self.seconds else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()
        profiler: Any = getattr(trainer, "profiler", None)
        if type(profiler) is PassThroughProfiler:
            profiler = _DataClock()
            setattr(trainer, "profiler", profiler)  # noqa: B010 - set while it is built, so that its type isn't known
        self._data_clock = profiler if isinstance(profiler, _DataClock) else None
        self._last_read_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._clock_start is None:
            self._clock_start = time.perf_counter()
            self._take_wait()  # for this batch, before the clock started

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
            rate, wait_share = self._read()
            pl_module.log(f"{self.unit}s_per_second", rate, prog_bar=True)
            if self._data_clock is not None:
                pl_module.log("data_wait_share", wait_share)
            if self.single_process_rate is not None:
                pl_module.log("scaling_efficiency", rate / (trainer.world_size * self.single_process_rate))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read()
        self._clock_start = None

    def _reset(self) -> None:
        self.total = 0
        self.seconds = 0.0
        self._waited = 0.0  # seconds, of `seconds`
        self._pending_units: Tensor | None = None  # on the device, not added to `total` yet
        self._pending_seconds = 0.0  # their time
        self._clock_start: float | None = None
        self._last_read_step = -1

    def _pause(self) -> None:
        if self._clock_start is not None:
            self._pending_seconds += time.perf_counter() - self._clock_start
        self._clock_start = None

    def _read(self) -> tuple[float, float]:
        """Adds what is pending to the totals; returns units per second, and the share of waiting. Collective."""
        if self._pending_units is None:
            return 0.0, 0.0
        # In microseconds, so that both are integers and need one message.
        read = torch.stack([self._pending_units, self._pending_units.new_tensor(int(1e6 * self._take_wait()))])
        ranks = 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(read)
            ranks = torch.distributed.get_world_size()
        units, microseconds = read.tolist()  # waits for the device, so that the clock includes its work
        waited = microseconds / 1e6 / ranks
        self._pause()
        self._clock_start = time.perf_counter()
        seconds, self._pending_seconds, self._pending_units = self._pending_seconds, 0.0, None
        self.total += units
        self.seconds += seconds
        self._waited += waited
        return (units / seconds, waited / seconds) if seconds else (0.0, 0.0)

    def _take_wait(self) -> float:
        """Returns the seconds of waiting since the last call."""
        if self._data_clock is None:
            return 0.0
        seconds, self._data_clock.seconds = self._data_clock.seconds, 0.0
        return seconds
