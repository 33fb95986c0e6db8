"""How many threads compute a training step: measured, since several wait for one another where cores are busy."""

import logging
import os
import socket
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from unrolled.training.callbacks.gathering import of_all_processes
from unrolled.training.console.terminal import print_rows
from unrolled.wording import counted

_log = logging.getLogger(__name__)

_WARM = 2  # first steps, which also compile, allocate and start threads
_PLAIN = 3.0  # how much slower all of one kind must be than all of the other to see it at once
_GAIN = 1.05  # how much faster several threads must be than one to be worth the cores they take


class Trial:
    """Steps taken by turns with one thread and with several, until it is clear which are faster.

    The turns go one, several, several, one, …, so that a machine that slows down meanwhile slows both down alike.
    Medians decide, so that a step in which something else happened doesn't.

    Args:
        most: the larger number of threads.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._paces: dict[int, list[float]] = {1: [], most: []}  # seconds of a unit of work, by threads
        self._done = 0
        self._seconds = 0.0

    @property
    def threads(self) -> int:
        """With how many the next step is taken."""
        return (1, self.most, self.most, 1)[self._done % 4]

    def add(self, seconds: float, units: int) -> None:
        """A step with `threads` that took so long for so many units of work."""
        if self._done >= _WARM:
            self._paces[self.threads].append(seconds / max(units, 1))
            self._seconds += seconds
        self._done += 1

    @property
    def finished(self) -> bool:
        """After a second, and 8 steps each; fewer where steps are long, and fewest where the difference is plain."""
        one, several = self._paces[1], self._paces[self.most]
        fewest = min(len(one), len(several))
        if self._seconds < 1 or fewest < 2:
            return False
        plain = min(several) > _PLAIN * max(one) or min(one) > _PLAIN * max(several)
        return plain or fewest >= (3 if self._seconds >= 10 else 8)

    @property
    def slowdown(self) -> float:
        """Time of a step with several threads divided by its time with one."""
        return median(self._paces[self.most]) / median(self._paces[1])

    @property
    def best(self) -> int:
        """The number of threads to go on with."""
        return self.most if self.slowdown * _GAIN <= 1 else 1


class Threads(Callback):
    """Trains on a CPU with all of torch's threads or with one, whichever its first steps show to be faster.

    Two threads of a kernel wait for one another at its end: where other programs keep the cores busy, they can take
    many times as long as one. What is found is printed, kept in checkpoints, and taken over by a run that is resumed,
    so that its sums are made in the same order. Processes that may run on the same cores share them out first.

    After the trainer's work torch has as many threads as before.

    Args:
        number: threads to compute with, whatever is faster; None to measure.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(self, number: int | None = None) -> None:
        whole = isinstance(number, int) and not isinstance(number, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
        if number is not None and not (whole and number >= 1):
            raise ValueError(f"threads={number!r}: 1 or more, or null, which measures whether one is faster than all")
        self.number = number  # as soon as it is known
        self._most = torch.get_num_threads()
        self._trial: Trial | None = None
        self._units, self._spent, self._began, self._step = 0, 0.0, 0.0, 0
        self._before: int | None = None
        self._resumed = False

    @staticmethod
    def of(trainer: Trainer) -> "Threads":
        """The one that a trainer has, or else one that would measure."""
        callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
        return next((callback for callback in callbacks if isinstance(callback, Threads)), Threads())

    @property
    def count(self) -> int:
        """Threads that are computed with, as far as is known."""
        return self._most if self.number is None else self.number

    def describe(self) -> str:
        """What is computed with: "2 threads", "1 of 2 threads"."""
        few = f"{self.count} of " if self.count < self._most else ""
        return few + counted(max(self.count, self._most), "thread")

    def head(self, trainer: Trainer) -> str:
        """What there is to be said before training, when processes haven't shared the cores out yet."""
        if trainer.strategy.root_device.type != "cpu" or trainer.world_size > 1:
            return ""
        asked = " (the first steps tell whether 1 is faster)" if self.number is None and self._most > 1 else ""
        return f", {self.describe()}{asked}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._before = self._most = torch.get_num_threads()
        on_cpu = trainer.strategy.root_device.type == "cpu"
        if on_cpu and trainer.world_size > 1:
            self._most = min(fair_shares(of_all_processes([(socket.gethostname(), _cores(), self._before)])))
        torch.set_num_threads(self.count)
        if on_cpu and trainer.world_size > 1 and stage == "fit" and trainer.is_global_zero:
            print_rows(("device", f"{self.describe()} in each process"))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        on_cpu = trainer.strategy.root_device.type == "cpu"
        self._trial = Trial(self._most) if on_cpu and self.number is None and self._most > 1 else None
        self._units, self._spent, self._step = 0, 0.0, trainer.global_step
        if self._resumed and trainer.is_global_zero:
            print_rows(("device", f"{self.describe()}, as in the run that is resumed"))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._trial is not None:
            torch.set_num_threads(self._trial.threads)
            self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._trial is None:
            return
        self._spent += time.perf_counter() - self._began
        lengths = getattr(batch, "lengths", None)
        self._units += 1 if lengths is None else int(lengths.sum())
        if trainer.global_step == self._step:  # gradients are accumulated: the step is not complete
            return
        self._trial.add(self._spent, self._units)
        self._units, self._spent, self._step = 0, 0.0, trainer.global_step
        # All processes count alike, and the first one's clock speaks for all: they wait for one another at each step.
        if trainer.strategy.broadcast(self._trial.finished):
            self._decide(trainer, trainer.strategy.broadcast(self._trial.best), self._trial)

    def _decide(self, trainer: Trainer, number: int, trial: Trial) -> None:
        self._use(number)
        self._trial = None
        if trainer.is_global_zero:
            print_rows(("device", f"{self.describe()}: {_found(trial)}; threads=N fixes it"))

    def _use(self, number: int) -> None:
        self.number = number
        torch.set_num_threads(number)

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        stored = state_dict.get("number")
        if self.number is not None or stored is None:
            return
        if stored > self._most:
            _log.warning(
                "the run that is resumed used %s, here are %d: the last digits of sums may differ; threads=%d takes as "
                "many all the same",
                counted(stored, "thread"),
                self._most,
                stored,
            )
            return
        self._use(stored)
        self._resumed = stored < self._most

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        self._trial = None
        if self._before is not None:
            torch.set_num_threads(self._before)


def _found(trial: Trial) -> str:
    many, slowdown = counted(trial.most, "thread"), trial.slowdown
    if trial.best > 1:
        return f"a step takes {1 / slowdown:.2g} times as long with 1 thread"
    if slowdown > _GAIN:
        return f"a step takes {slowdown:.2g} times as long with {many}"
    return f"{many} are not worth it, a step takes {slowdown:.2g} times as long with them"


def fair_shares(processes: Sequence[tuple[str, Sequence[int], int]]) -> list[int]:
    """Threads of each process, given its host, the cores that it may run on, and the threads that it has by itself."""
    users: dict[tuple[str, int], int] = {}
    for host, cores, _ in processes:
        for core in cores:
            users[host, core] = users.get((host, core), 0) + 1
    return [
        max(1, min(threads, int(sum(1 / users[host, core] for core in cores) + 1e-9)))
        for host, cores, threads in processes
    ]


def _cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
