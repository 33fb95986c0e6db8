"""An exponential moving average of the weights, which is what validation, samples and checkpoints see."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging as LightningWeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from unrolled.training.callbacks.clip import GradientClip


class WeightAveraging(LightningWeightAveraging):
    """Trains on the weights, looks at their average: average ← decay × average + (1 − decay) × weights, every step.

    Polyak and Juditsky 1992 ("Acceleration of stochastic approximation by averaging") with exponential forgetting, as
    it is used today. `decay` remembers about 1 / (1 − decay) steps. Until `start` steps are done, and at the first one
    in any case, the average is a copy of the weights, so that the random beginning doesn't linger in it. A step that
    `GradientClip` skips doesn't count.

    Validation during training runs on the average, and after training the module holds it. A checkpoint's `state_dict`
    is the average under the module's own keys, ready for whoever reads the file; `current_model_state` holds the
    weights that training goes on with, and `averaging_state` the number of updates. So a run resumed with this callback
    is exact, and one resumed without it starts from the average with the optimizer's old moments: keep the callback.
    Buffers of floating-point numbers, such as the statistics of a batch norm, are averaged, too, since those of the
    weights would not fit the average's; others are taken over as they are. Memory: one more copy of the weights.

    Lightning's class does most of the work. What this one changes: there, validation and checkpoints before the first
    update use the weights from before training; a checkpoint written while the two are exchanged, or after training,
    mixes them up; and `trainer.test(ckpt_path=…)` after training loads the weights instead of the average.

    Args:
        decay: 0 to below 1; the share of the average that stays at each step.
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
                f"{type(trainer.strategy).__name__} shards the weights, which can't be averaged here; "
                "train with DDP or leave WeightAveraging out"
            )
        if stage == "fit":
            self._exchanged = False
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
        if any(isinstance(callback, GradientClip) and callback.step_skipped for callback in callbacks):
            self._latest_update_step = trainer.global_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._exchange(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not at the end of the epoch, as Lightning has it: other callbacks look at the network there (Samples).
        if trainer.state.fn == "fit":
            self._exchange(pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pass

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pass

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._exchange(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._exchanged:  # in the midst of a validation
            self._exchange(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._exchanged and "current_model_state" in checkpoint:
            current, average = checkpoint["state_dict"], checkpoint["current_model_state"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = average, current

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Everywhere else the average, under "state_dict", is what is wanted, and it is loaded already.
        if trainer.state.fn == "fit":
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _update(self, averages: list[Tensor], weights: list[Tensor], num_averaged: Tensor) -> None:
        """One step of the average, for tensors of one type; torch has taken the first one as a copy before."""
        if not averages[0].is_floating_point():
            for average, weight in zip(averages, weights, strict=True):
                average.copy_(weight)
            return
        decay = self.decay if int(num_averaged) >= self.start else 0.0
        get_ema_multi_avg_fn(decay)(averages, weights, num_averaged)

    def _exchange(self, module: LightningModule) -> None:
        self._swap_models(module)
        self._exchanged = not self._exchanged
