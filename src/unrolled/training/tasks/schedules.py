"""Learning rate schedules. Each one builds a torch scheduler once the length of the run is known."""

import math
import sys
from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR


class Schedule(ABC):
    """Builds Lightning's scheduler configuration from an optimizer and its number of steps."""

    @abstractmethod
    def build(self, optimizer: Optimizer, num_steps: int | float) -> dict[str, Any]:
        """Returns the scheduler, its interval and its monitored metric.

        Args:
            optimizer: the optimizer whose learning rates are scheduled.
            num_steps: optimizer steps of the whole run; infinite if the run has no end.

        Raises:
            ValueError: the schedule needs an end, and the run has none.
        """


class Cosine(Schedule):
    """Linear warmup, then cosine annealing to the floor (Loshchilov & Hutter 2017, without restarts).

    Args:
        warmup: fraction of the steps with a linear increase from 0.
        floor: final learning rate as a fraction of the optimizer's.

    Raises:
        ValueError: a fraction outside [0, 1).
    """

    def __init__(self, warmup: float = 0.05, floor: float = 0.0) -> None:
        for name, share in {"warmup": warmup, "floor": floor}.items():
            if not 0.0 <= share < 1.0:
                raise ValueError(f"{name}={share}: must be a fraction of at least 0 and below 1")
        self.warmup = warmup
        self.floor = floor

    def build(self, optimizer: Optimizer, num_steps: int | float) -> dict[str, Any]:
        """Stepped after every optimizer step."""
        if not math.isfinite(num_steps):
            raise ValueError("scheduler=cosine needs an end: set trainer.max_epochs or trainer.max_steps")
        warmup = max(1, round(self.warmup * num_steps))

        def factor(step: int) -> float:
            if step < warmup and self.warmup > 0:
                return (step + 1) / warmup
            done = min(1.0, (step - warmup) / max(1.0, num_steps - warmup))
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * max(0.0, done)))

        return {"scheduler": LambdaLR(optimizer, factor), "interval": "step", "name": "learning_rate"}


class Plateau(Schedule):
    """Multiplies the learning rate by `factor` when a validation metric stops improving.

    Args:
        monitor: name of the logged metric; lower is better.
        factor: factor of the learning rate.
        patience: number of validations without improvement before the learning rate is reduced.

    Raises:
        ValueError: a factor outside (0, 1) or a patience below 0.
    """

    def __init__(self, monitor: str = "validation/loss", factor: float = 0.5, patience: int = 3) -> None:
        if not 0.0 < factor < 1.0 or patience < 0:
            raise ValueError(
                f"factor={factor} must be above 0 and below 1, and patience={patience} must be 0 or more validations"
            )
        self.monitor = monitor
        self.factor = factor
        self.patience = patience

    def build(self, optimizer: Optimizer, num_steps: int | float) -> dict[str, Any]:
        """Stepped by `PlateauStepper` after each validation."""
        scheduler = ReduceLROnPlateau(optimizer, factor=self.factor, patience=self.patience)
        # Lightning saves this scheduler but never steps it: it would lose the step of an epoch that is resumed at its
        # end, and fail in an epoch without a validation (2.6).
        never = {"interval": "epoch", "frequency": sys.maxsize}
        return {"scheduler": scheduler, **never, "monitor": self.monitor, "name": "learning_rate"}


class PlateauStepper(Callback):
    """Steps schedulers with a monitored metric after each validation that logged it, before a checkpoint is saved."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau) and config.monitor in trainer.callback_metrics:
                config.scheduler.step(float(trainer.callback_metrics[config.monitor]))


class Steps(Schedule):
    """Multiplies the learning rate by `factor` every `epochs` epochs."""

    def __init__(self, epochs: int = 1, factor: float = 0.95) -> None:
        if epochs < 1 or not 0.0 < factor <= 1.0:
            raise ValueError(f"epochs={epochs} must be 1 or more, and factor={factor} above 0 and at most 1")
        self.epochs = epochs
        self.factor = factor

    def build(self, optimizer: Optimizer, num_steps: int | float) -> dict[str, Any]:
        """Stepped after every epoch."""
        scheduler = StepLR(optimizer, step_size=self.epochs, gamma=self.factor)
        return {"scheduler": scheduler, "interval": "epoch", "name": "learning_rate"}


class Range(Schedule):
    """Multiplies the learning rate by a constant factor every step, from `first` to `last` (Smith 2017, section 3.3).

    Args:
        first: learning rate of the first step.
        last: learning rate of the last step.

    Raises:
        ValueError: not 0 < first < last.
    """

    def __init__(self, first: float = 1e-6, last: float = 1.0) -> None:
        if not 0.0 < first < last < math.inf:
            raise ValueError(f"first={first} must be above 0 and below last={last}")
        self.first, self.last = first, last

    def build(self, optimizer: Optimizer, num_steps: int | float) -> dict[str, Any]:
        """Stepped after every optimizer step. Groups with a rate of their own keep its ratio to that of the first."""
        if not math.isfinite(num_steps):
            raise ValueError("scheduler Range needs an end: set trainer.max_epochs or trainer.max_steps")
        rate = float(optimizer.param_groups[0]["lr"])
        if rate <= 0:
            raise ValueError(f"optimizer.lr={rate}: must be above 0, since the schedule multiplies it")

        def factor(step: int) -> float:
            done = min(1.0, step / max(1.0, num_steps - 1))
            return self.first * (self.last / self.first) ** done / rate

        return {"scheduler": LambdaLR(optimizer, factor), "interval": "step", "name": "learning_rate"}


def num_steps(trainer: Trainer, data: Any) -> int | float:
    """Returns the optimizer steps of the whole run on a data module of the trainer; infinite without an end."""
    most = math.inf if trainer.max_steps == -1 else trainer.max_steps
    if trainer.max_epochs is None or trainer.max_epochs == -1:
        return most
    return min(most, steps_per_epoch(trainer, data) * trainer.max_epochs)


def steps_per_epoch(trainer: Trainer, data: Any) -> int:
    """Returns the optimizer steps of an epoch."""
    batches, limit = len(data.train_dataloader()), trainer.limit_train_batches
    taken = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    return math.ceil(taken / trainer.accumulate_grad_batches)
