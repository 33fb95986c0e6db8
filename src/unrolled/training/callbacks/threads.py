"""Number of CPU threads for training, chosen by measurement."""

import logging
import os
import socket
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from unrolled.training.callbacks.gathering import gather_from_all_ranks
from unrolled.training.console.terminal import print_rows
from unrolled.wording import counted

_log = logging.getLogger(__name__)

_WARMUP_STEPS = 2  # not measured: these steps also compile, allocate and start threads
_CLEAR_RATIO = 3.0  # if all steps of one kind are slower than all of the other by this factor, few steps are enough
_MIN_SPEEDUP = 1.05  # several threads must be faster than one by this factor to be chosen


class Trial:
    """Times steps alternately with one thread and with several, until it is clear which is faster.

    The order is one, several, several, one, …, so that a machine that becomes slower affects both equally. Medians are
    compared, so that single slow steps don't matter.

    Args:
        most: the larger number of threads.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._paces: dict[int, list[float]] = {1: [], most: []}  # seconds per unit of work, by number of threads
        self._done = 0
        self._seconds = 0.0

    @property
    def threads(self) -> int:
        """Number of threads for the next step."""
        return (1, self.most, self.most, 1)[self._done % 4]

    def add(self, seconds: float, units: int) -> None:
        """Records the duration of a step with `threads` threads and its units of work."""
        if self._done >= _WARMUP_STEPS:
            self._paces[self.threads].append(seconds / max(units, 1))
            self._seconds += seconds
        self._done += 1

    @property
    def finished(self) -> bool:
        """Whether a second has passed and 8 steps of each kind are timed; fewer if steps are long or clearly differ."""
        one, several = self._paces[1], self._paces[self.most]
        fewest = min(len(one), len(several))
        if self._seconds < 1 or fewest < 2:
            return False
        plain = min(several) > _CLEAR_RATIO * max(one) or min(one) > _CLEAR_RATIO * max(several)
        return plain or fewest >= (3 if self._seconds >= 10 else 8)

    @property
    def slowdown(self) -> float:
        """Time of a step with several threads divided by the time with one."""
        return median(self._paces[self.most]) / median(self._paces[1])

    @property
    def best(self) -> int:
        """The faster number of threads."""
        return self.most if self.slowdown * _MIN_SPEEDUP <= 1 else 1


class Threads(Callback):
    """Chooses between all of torch's threads and one thread for training on a CPU, by timing the first steps.

    The threads of a kernel wait for each other at its end: if other programs keep the cores busy, several threads can
    be many times slower than one. The result is printed and saved in checkpoints. A resumed run uses the same number,
    so that sums are computed in the same order. Processes on the same cores first divide the cores among them.

    After training or testing, torch's number of threads is restored.

    Args:
        number: number of threads; None to choose by measurement.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(self, number: int | None = None) -> None:
        whole = isinstance(number, int) and not isinstance(number, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
        if number is not None and not (whole and number >= 1):
            raise ValueError(f"threads={number!r}: must be 1 or more, or null to measure whether 1 is faster than all")
        self.number = number  # None until it is known
        self._max_threads = torch.get_num_threads()
        self._trial: Trial | None = None
        self._units, self._step_seconds, self._step_start, self._step = 0, 0.0, 0.0, 0
        self._threads_before: int | None = None
        self._resumed = False

    @staticmethod
    def of(trainer: Trainer) -> "Threads":
        """Returns the trainer's Threads callback, or a default one."""
        callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
        return next((callback for callback in callbacks if isinstance(callback, Threads)), Threads())

    @property
    def count(self) -> int:
        """Number of threads; the maximum while the choice is not made."""
        return self._max_threads if self.number is None else self.number

    def describe(self) -> str:
        """Returns a description: "2 threads", "1 of 2 threads"."""
        few = f"{self.count} of " if self.count < self._max_threads else ""
        return few + counted(max(self.count, self._max_threads), "thread")

    def startup_note(self, trainer: Trainer) -> str:
        """Returns the description printed before training; empty if processes have yet to divide the cores."""
        if trainer.strategy.root_device.type != "cpu" or trainer.world_size > 1:
            return ""
        measures = self.number is None and self._max_threads > 1
        return f", {self.describe()}{' (the first steps measure whether 1 is faster)' if measures else ''}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._threads_before = self._max_threads = torch.get_num_threads()
        on_cpu = trainer.strategy.root_device.type == "cpu"
        if on_cpu and trainer.world_size > 1:
            self._max_threads = min(
                fair_shares(gather_from_all_ranks([(socket.gethostname(), _cores(), self._threads_before)]))
            )
        torch.set_num_threads(self.count)
        if on_cpu and trainer.world_size > 1 and stage == "fit" and trainer.is_global_zero:
            print_rows(("device", f"{self.describe()} in each process"))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        on_cpu = trainer.strategy.root_device.type == "cpu"
        self._trial = Trial(self._max_threads) if on_cpu and self.number is None and self._max_threads > 1 else None
        self._units, self._step_seconds, self._step = 0, 0.0, trainer.global_step
        if self._resumed and trainer.is_global_zero:
            print_rows(("device", f"{self.describe()}, as in the resumed run"))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._trial is not None:
            torch.set_num_threads(self._trial.threads)
            self._step_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._trial is None:
            return
        self._step_seconds += time.perf_counter() - self._step_start
        lengths = getattr(batch, "lengths", None)
        self._units += 1 if lengths is None else int(lengths.sum())
        if trainer.global_step == self._step:  # gradients are accumulated: the step is not complete
            return
        self._trial.add(self._step_seconds, self._units)
        self._units, self._step_seconds, self._step = 0, 0.0, trainer.global_step
        # Rank 0's clock decides for all processes: they wait for each other at each step.
        if trainer.strategy.broadcast(self._trial.finished):
            self._decide(trainer, trainer.strategy.broadcast(self._trial.best), self._trial)

    def _decide(self, trainer: Trainer, number: int, trial: Trial) -> None:
        self._set_threads(number)
        self._trial = None
        if trainer.is_global_zero:
            print_rows(("device", f"{self.describe()}: {_describe_result(trial)}; threads=N sets the number"))

    def _set_threads(self, number: int) -> None:
        self.number = number
        torch.set_num_threads(number)

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        stored = state_dict.get("number")
        if self.number is not None or stored is None:
            return
        if stored > self._max_threads:
            _log.warning(
                "the resumed run used %s, this machine has %d: the last digits of sums may differ; threads=%d uses the "
                "old number",
                counted(stored, "thread"),
                self._max_threads,
                stored,
            )
            return
        self._set_threads(stored)
        self._resumed = stored < self._max_threads

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        self._trial = None
        if self._threads_before is not None:
            torch.set_num_threads(self._threads_before)


def _describe_result(trial: Trial) -> str:
    many, slowdown = counted(trial.most, "thread"), trial.slowdown
    if trial.best > 1:
        return f"a step takes {1 / slowdown:.2g} times as long with 1 thread"
    if slowdown > _MIN_SPEEDUP:
        return f"a step takes {slowdown:.2g} times as long with {many}"
    return f"{many} bring too little, a step takes {slowdown:.2g} times as long with them"


def fair_shares(processes: Sequence[tuple[str, Sequence[int], int]]) -> list[int]:
    """Divides cores among processes and returns the number of threads of each.

    Args:
        processes: host, allowed cores, and torch's default number of threads of each process.
    """
    users: dict[tuple[str, int], int] = {}
    for host, cores, _ in processes:
        for core in cores:
            users[host, core] = users.get((host, core), 0) + 1
    return [
        max(1, min(threads, int(sum(1 / users[host, core] for core in cores) + 1e-9)))
        for host, cores, threads in processes
    ]


def _cores() -> list[int]:
    """Returns the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
