"""Progress of a run: a progress bar in a terminal, plain lines in a log."""

import math
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import BatchesProcessedColumn, CustomBarColumn
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme as Theme
from rich.progress import ProgressColumn, Task, TextColumn
from rich.text import Text

from unrolled.training.console.terminal import is_interactive
from unrolled.wording import counted


class Progress(RichProgressBar):
    """Displays the epoch, step and metrics, and the elapsed and remaining time of the whole run.

    Shows the metrics logged with `prog_bar=True`. `train/loss` is displayed as "loss", and a name that ends in
    `_per_second` as a rate. The remaining time is estimated from the steps since training started, including
    validations, up to `max_steps` or `max_epochs`, whichever comes first.

    If standard output is not interactive (a file, a pipe, a cluster's log), plain lines without escape codes replace
    the bar: one every `every` seconds, one after each validation and one before a test.

    Args:
        refresh_rate: updates of the bar per second; metrics are fetched from the device as often.
        every: seconds between two plain lines.
        plain: True for plain lines, False for the bar; None decides by standard output.
    """

    def __init__(self, *, refresh_rate: int = 5, every: float = 30.0, plain: bool | None = None) -> None:
        theme = Theme(metrics="", metrics_text_delimiter="  ", time="")
        super().__init__(refresh_rate=refresh_rate, theme=theme)
        if refresh_rate < 1 or not every > 0:
            raise ValueError(f"refresh_rate={refresh_rate} must be 1 or more and every={every} above 0")
        self.every = every
        self.plain = plain if plain is not None else not is_interactive()
        self._started: float | None = None
        self._first_step = 0
        self._fetched = -math.inf
        self._printed = self._test_start = 0.0

    @property
    def is_enabled(self) -> bool:
        return super().is_enabled and not self.plain

    @property
    def elapsed(self) -> float:
        """Seconds since training started."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    @property
    def remaining(self) -> float | None:
        """Estimated seconds until training ends; None if unknown."""
        total = _total_steps(self.trainer)
        done = self.trainer.global_step - self._first_step
        if total is None or done < 1:
            return None
        return self.elapsed / done * max(0, total - self.trainer.global_step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = self._printed = time.monotonic()
        self._first_step = trainer.global_step
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if time.monotonic() - self._printed >= self.every:
            self._print_line(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._print_line(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._print_batch(trainer, "validation", sum(batches[:dataloader_idx]) + batch_idx + 1, sum(batches))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_test_start(trainer, pl_module)
        self._printed = self._test_start = time.monotonic()
        self._print(trainer, [f"test of {_batches(sum(trainer.num_test_batches))}"])

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        batches = trainer.num_test_batches
        done = sum(batches[:dataloader_idx]) + batch_idx + 1
        elapsed = time.monotonic() - self._test_start
        left = elapsed / done * (sum(batches) - done)
        times = [f"{_clock(elapsed)} elapsed", *([f"{_clock(left)} left"] if math.isfinite(left) else [])]
        self._print_batch(trainer, "test", done, sum(batches), times)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Returns the displayed names and values, in the order they were logged."""
        shown: dict[str, Any] = {}
        for name, value in trainer.progress_bar_metrics.items():
            if name.endswith("_per_second"):
                shown[f"{_display_name(name.removesuffix('_per_second'))}/s"] = _abbreviate(value)
            elif f"{name.removesuffix('_epoch')}_step" not in trainer.progress_bar_metrics:
                shown[_display_name(name)] = f"{value:.4g}"
        return shown

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        return [
            TextColumn("[progress.description]{task.description}"),
            CustomBarColumn(
                bar_width=20,
                complete_style=self.theme.progress_bar,
                finished_style=self.theme.progress_bar_finished,
                pulse_style=self.theme.progress_bar_pulse,
            ),
            BatchesProcessedColumn(style=self.theme.batch_progress),
            _TimeColumn(self),
        ]

    def _get_train_description(self, current_epoch: int) -> str:
        description = _epoch(self.trainer)
        return f"{description:{len(self.validation_description)}}"  # equal width, so that the bar does not move

    def _update_metrics(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Fetching a metric waits for the device, so it is not done for every batch.
        if time.monotonic() - self._fetched < 1 / self.refresh_rate and not trainer.validating:
            return
        self._fetched = time.monotonic()
        super()._update_metrics(trainer, pl_module)

    def _print_batch(self, trainer: Trainer, stage: str, done: float, of: float, times: Sequence[str] = ()) -> None:
        if time.monotonic() - self._printed >= self.every:
            self._printed = time.monotonic()
            self._print(trainer, [f"{stage} batch {done:.0f}" + (f" of {of:.0f}" if math.isfinite(of) else ""), *times])

    def _print(self, trainer: Trainer, parts: Sequence[str]) -> None:
        if self.plain and trainer.is_global_zero:
            print("  ".join(parts), flush=True)

    def _print_line(self, trainer: Trainer, module: LightningModule) -> None:
        self._printed = time.monotonic()
        total, remaining = _total_steps(trainer), self.remaining
        parts = [f"step {trainer.global_step}" + (f" of {total}" if total is not None else ""), _epoch(trainer).lower()]
        parts += [f"{name} {value}" for name, value in self.get_metrics(trainer, module).items()]
        parts += [f"{_clock(self.elapsed)} elapsed"]
        parts += [f"{_clock(remaining)} left"] if remaining is not None else []
        self._print(trainer, parts)


class _TimeColumn(ProgressColumn):
    """Shows the time of the whole run at the training bar, and of the loop at other bars."""

    max_refresh = 0.5  # seconds; faster updates flicker

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        super().__init__()

    def render(self, task: Task) -> Text:
        if task.id == self._bar.train_progress_bar_id:
            elapsed, remaining = self._bar.elapsed, self._bar.remaining
        else:
            elapsed, remaining = task.elapsed or 0.0, task.time_remaining
        return Text(f"{_clock(elapsed)} • {_clock(remaining)} left")


def _total_steps(trainer: Trainer) -> int | None:
    """Returns the optimizer steps of the whole run, or None if it has no end."""
    limits: list[int] = []
    if trainer.max_steps > 0:
        limits.append(trainer.max_steps)
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    if epochs is not None and epochs > 0 and math.isfinite(batches):
        limits.append(epochs * math.ceil(batches / trainer.accumulate_grad_batches))
    return min(limits, default=None)


def _batches(number: float) -> str:
    return counted(int(number), "batch", "batches") if math.isfinite(number) else "batches without end"


def _epoch(trainer: Trainer) -> str:
    epochs = trainer.max_epochs
    return f"Epoch {trainer.current_epoch + 1}" + (f" of {epochs}" if epochs is not None and epochs > 0 else "")


def _display_name(name: str) -> str:
    """train/bits_per_character -> bits per character, gradient/norm_before -> gradient norm."""
    name = name.removeprefix("train/").removesuffix("_step").removesuffix("_before")
    return name.replace("/", " ").replace("_", " ")


def _abbreviate(value: float) -> str:
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g}{suffix}"
    return f"{value:.3g}"


def _clock(seconds: float | None) -> str:
    return "-:--:--" if seconds is None else str(timedelta(seconds=int(seconds)))
