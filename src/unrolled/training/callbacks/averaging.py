"""Exponential moving average of the weights, used for validation, samples and checkpoints."""

import warnings
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging as LightningWeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAveraging(LightningWeightAveraging):
    """Keeps an average of the weights for evaluation: average ← decay × average + (1 − decay) × weights, every step.

    Polyak and Juditsky 1992 ("Acceleration of stochastic approximation by averaging"), with exponential decay instead
    of a uniform average. The average covers about 1 / (1 − decay) steps. Until step `start`, and at least for the first
    step, the average is a copy of the weights, so that the random initialization does not remain in it. A step that
    `GradientClip` skips is not counted.

    Validation during training uses the average, and after training the module holds it. A checkpoint's `state_dict` is
    the average, under the module's own keys; `current_model_state` holds the weights that training continues with, and
    `averaging_state` the number of updates. A run resumed with this callback is exact. A run resumed without it starts
    from the average with the optimizer's old moments, so keep the callback. Floating-point buffers, such as the
    statistics of a batch norm, are averaged as well, since those of the weights would not match the average. Other
    buffers are copied. Memory: one more copy of the weights.

    Differences from Lightning's class: there, validation and checkpoints before the first update use the weights from
    before training; a checkpoint written while the two are exchanged, or after training, confuses them; and
    `trainer.test(ckpt_path=…)` after training loads the weights instead of the average.

    Args:
        decay: factor of the old average at each step, at least 0 and below 1.
        start: optimizer steps before the averaging begins.

    Raises:
        ValueError: a decay or start out of range; at the start of training: a strategy that shards the weights.
    """

    def __init__(self, decay: float = 0.999, *, start: int = 0) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} must be at least 0 and below 1; 0.999 remembers about a thousand steps")
        if start < 0:
            raise ValueError(f"start={start} must be 0 steps or more")
        self.decay = decay
        self.start = start
        self._exchanged = False  # the module holds the average and the averaged copy holds the weights
        super().__init__(use_buffers=True, multi_avg_fn=self._update)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise ValueError(
                f"{type(trainer.strategy).__name__} shards the weights, which this callback cannot average; "
                "train with DDP or remove WeightAveraging"
            )
        if stage == "fit":
            self._exchanged = False
        with warnings.catch_warnings():  # of sharding, which was refused above
            warnings.filterwarnings("ignore", message="You're using the WeightAveraging callback")
            super().setup(trainer, pl_module, stage)
        if stage == "fit" and self._average_model is not None:  # Lightning converts the module later (2.6)
            trainer.precision_plugin.convert_module(self._average_model)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
        if any(getattr(callback, "step_skipped", False) for callback in callbacks):  # GradientClip, Rollback
            self._latest_update_step = trainer.global_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._exchange(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not at the end of the epoch, as in Lightning: other callbacks use the network there (Samples).
        if trainer.state.fn == "fit":
            self._exchange(pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pass

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pass

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._exchange(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._exchanged:  # during a validation
            self._exchange(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._exchanged and "current_model_state" in checkpoint:
            current, average = checkpoint["state_dict"], checkpoint["current_model_state"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = average, current

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Otherwise the average under "state_dict" is the right one, and it is already loaded.
        if trainer.state.fn == "fit":
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def averaged_state(self) -> dict[str, Any]:
        """Returns the average and its number of updates."""
        return {} if self._average_model is None else dict(self._average_model.state_dict())

    def restore_average(self, state: dict[str, Any]) -> None:
        """Restores the result of `averaged_state`."""
        if self._average_model is not None:
            self._average_model.load_state_dict(state)

    def _update(self, averages: list[Tensor], weights: list[Tensor], num_averaged: Tensor) -> None:
        """Updates the average, for tensors of one dtype. At the first step torch copies the weights beforehand."""
        if not averages[0].is_floating_point():
            for average, weight in zip(averages, weights, strict=True):
                average.copy_(weight)
            return
        decay = self.decay if int(num_averaged) >= self.start else 0.0
        get_ema_multi_avg_fn(decay)(averages, weights, num_averaged)

    def _exchange(self, module: LightningModule) -> None:
        self._swap_models(module)
        self._exchanged = not self._exchanged
