"""What a signal does to a run: it ends after the next complete optimizer step, on all processes alike."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


class Interruption(Callback):
    """Ends training with status 128 + signal once SIGINT, SIGTERM or SIGUSR1 has come, when a step is complete.

    A handler only takes a note. At the end of each step the processes agree on whether one of them has one, so that
    they end together; a signal to any of them is enough. A validation that follows, or has begun, is finished first.
    The second signal ends a process at once. Outside training, signals do what they did before `fit`.
    """

    def __init__(self) -> None:
        self._signal = 0  # the one that came
        self._handlers: dict[int, Any] = {}  # those of before

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._signal = 0
        # Lightning puts handlers of its own in place after this; they would broadcast from within, and hang.
        if threading.current_thread() is threading.main_thread():
            found = {number: signal.getsignal(number) for number in SIGNALS}
            # One that was not put in place from Python is None, and could not be put back.
            self._handlers = {number: handler for number, handler in found.items() if handler is not None}

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put_back()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in self._handlers:
            signal.signal(number, self._note)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if is_complete(trainer):
            self._complete_step(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._complete_step(trainer, validated=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (number,) = agree(trainer, self._signal)
        if number:
            self._end(trainer, number)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put_back()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._put_back()

    def _complete_step(self, trainer: Trainer, *, validated: bool = False) -> None:
        """What happens once a step is complete: ends the run if any process was told to."""
        (number,) = agree(trainer, self._signal)
        if number:
            self._end(trainer, number)

    def _end(self, trainer: Trainer, number: int) -> None:
        if trainer.is_global_zero:
            print(f"{signal.Signals(number).name}: ended after step {trainer.global_step}; {self._hint()}", flush=True)
        # A process that another started must not end with an error before that one is through: it would be killed.
        environment = getattr(trainer.strategy, "cluster_environment", None)
        started_here = trainer.world_size > 1 and not getattr(environment, "creates_processes_externally", True)
        raise SystemExit(0 if started_here and trainer.global_rank > 0 else 128 + number)

    def _hint(self) -> str:
        """How to go on."""
        return "nothing was saved (callbacks.last is off)"

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        for each in self._handlers:
            signal.signal(each, signal.SIG_DFL)  # the next one ends the process, whatever it is waiting for
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: ending after this step, or this validation; once more ends at once\n".encode())

    def _put_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def is_complete(trainer: Trainer) -> bool:
    """Whether no accumulated gradient waits for further batches."""
    return not trainer.fit_loop._should_accumulate()  # pyright: ignore[reportPrivateUsage] - nothing public tells


def agree(trainer: Trainer, *numbers: int) -> list[int]:
    """The largest of each number over all processes; all must ask."""
    if trainer.world_size == 1:
        return list(numbers)
    held = torch.tensor(numbers, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(held, op=torch.distributed.ReduceOp.MAX)
    return held.tolist()
