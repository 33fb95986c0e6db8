"""How the learning rate moves: each schedule builds torch's own scheduler once the length of the run is known."""

import math
import sys
from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR


class Schedule(ABC):
    """Turns an optimizer and the number of its steps into what Lightning calls a scheduler configuration."""

    @abstractmethod
    def build(self, optimizer: Optimizer, num_steps: int | float) -> dict[str, Any]:
        """The scheduler, when it is stepped, and what it watches.

        Args:
            optimizer: whose learning rates move.
            num_steps: optimizer steps in the whole run; infinite when the trainer has no end.

        Raises:
            ValueError: a schedule that needs an end, in a run without one.
        """


class Cosine(Schedule):
    """Linear warm-up, then half a cosine down to the floor (Loshchilov & Hutter 2017, without restarts).

    Args:
        warmup: share of the steps that climb from 0.
        floor: last learning rate as a share of the optimizer's.

    Raises:
        ValueError: shares outside [0, 1).
    """

    def __init__(self, warmup: float = 0.05, floor: float = 0.0) -> None:
        for name, share in {"warmup": warmup, "floor": floor}.items():
            if not 0.0 <= share < 1.0:
                raise ValueError(f"{name}={share}: a share of 0 or more, and below 1")
        self.warmup = warmup
        self.floor = floor

    def build(self, optimizer: Optimizer, num_steps: int | float) -> dict[str, Any]:
        """Stepped after every optimizer step."""
        if not math.isfinite(num_steps):
            raise ValueError("scheduler=cosine needs an end: set trainer.max_epochs or trainer.max_steps")
        climb = max(1, round(self.warmup * num_steps))

        def factor(step: int) -> float:
            if step < climb and self.warmup > 0:
                return (step + 1) / climb
            done = min(1.0, (step - climb) / max(1.0, num_steps - climb))
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * max(0.0, done)))

        return {"scheduler": LambdaLR(optimizer, factor), "interval": "step", "name": "learning_rate"}


class Plateau(Schedule):
    """Multiplies the learning rate by `factor` when validation stops getting better.

    Args:
        monitor: the logged number to watch; smaller is better.
        factor: what the learning rate is multiplied with.
        patience: validations without a gain that are put up with.

    Raises:
        ValueError: a factor outside (0, 1) or a patience below 0.
    """

    def __init__(self, monitor: str = "validation/loss", factor: float = 0.5, patience: int = 3) -> None:
        if not 0.0 < factor < 1.0 or patience < 0:
            raise ValueError(f"factor={factor}, patience={patience}: above 0 and below 1, and 0 or more validations")
        self.monitor = monitor
        self.factor = factor
        self.patience = patience

    def build(self, optimizer: Optimizer, num_steps: int | float) -> dict[str, Any]:
        """Stepped by `MeasuredSteps` after each validation."""
        scheduler = ReduceLROnPlateau(optimizer, factor=self.factor, patience=self.patience)
        # Lightning saves it and never comes to step it: it would lose the step of an epoch that is resumed at its end,
        # and fail in an epoch without a validation (2.6).
        never = {"interval": "epoch", "frequency": sys.maxsize}
        return {"scheduler": scheduler, **never, "monitor": self.monitor, "name": "learning_rate"}


class MeasuredSteps(Callback):
    """Steps schedules that watch a number whenever a validation has measured it, before a checkpoint is written."""

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
            raise ValueError(f"epochs={epochs}, factor={factor}: 1 or more, and a factor above 0, at most 1")
        self.epochs = epochs
        self.factor = factor

    def build(self, optimizer: Optimizer, num_steps: int | float) -> dict[str, Any]:
        """Stepped after every epoch."""
        scheduler = StepLR(optimizer, step_size=self.epochs, gamma=self.factor)
        return {"scheduler": scheduler, "interval": "epoch", "name": "learning_rate"}
