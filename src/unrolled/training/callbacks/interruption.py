"""Signal handling: a run ends after the next complete optimizer step, on all processes."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from unrolled.training.callbacks.gathering import max_over_ranks
from unrolled.training.console.signals import SIGNALS


class Interruption(Callback):
    """Ends training with exit status 128 + signal after SIGINT, SIGTERM or SIGUSR1, once the current step is complete.

    The handler only stores the signal. At the end of each step the processes exchange it, so that they end together; a
    signal to any of them is enough. A validation that is running or due next is completed first. A second signal ends
    the process at once. Outside training, the handlers from before `fit` are active.
    """

    def __init__(self) -> None:
        self._signal = 0  # the received signal
        self._handlers: dict[int, Any] = {}  # the handlers from before training

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._signal = 0
        # Lightning installs its own handlers after this; they would broadcast from within the handler, and hang.
        if threading.current_thread() is threading.main_thread():
            found = {number: signal.getsignal(number) for number in SIGNALS}
            # A handler that was not installed from Python is None, and could not be restored.
            self._handlers = {number: handler for number, handler in found.items() if handler is not None}

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_handlers()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in self._handlers:
            signal.signal(number, self._handle_signal)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if is_step_complete(trainer):
            self._complete_step(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._complete_step(trainer, validated=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (number,) = max_over_ranks(trainer, self._signal)
        if number:
            self._stop(trainer, number)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_handlers()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_handlers()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_handlers()

    def _complete_step(self, trainer: Trainer, *, validated: bool = False) -> None:
        """Called when a step is complete. Ends the run if any process has received a signal."""
        (number,) = max_over_ranks(trainer, self._signal)
        if number:
            self._stop(trainer, number)

    def _stop(self, trainer: Trainer, number: int) -> None:
        if trainer.is_global_zero:
            print(
                f"{signal.Signals(number).name}: ended after step {trainer.global_step}; {self._resume_hint()}",
                flush=True,
            )
        # Others leave the status to rank 0: a launcher that sees an error of theirs could kill rank 0 before its end.
        raise SystemExit(128 + number if trainer.is_global_zero else 0)

    def _resume_hint(self) -> str:
        """Returns how to resume the run."""
        return "nothing was saved (callbacks.last is off)"

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        for each in self._handlers:
            signal.signal(each, signal.SIG_DFL)  # the next signal ends the process, even during a blocking call
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: ending after this step or validation; a second signal ends at once\n".encode())

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def is_step_complete(trainer: Trainer) -> bool:
    """Whether the optimizer step is complete: no accumulated gradient is waiting for further batches."""
    return not trainer.fit_loop._should_accumulate()  # pyright: ignore[reportPrivateUsage] - there is no public way
