"""Rolls training back to earlier weights when the loss spikes, and skips the data that led there."""

import copy
import logging
import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.optim import Optimizer

from unrolled.training.callbacks.averaging import WeightAveraging
from unrolled.training.callbacks.clip import GradientClip
from unrolled.training.callbacks.nonfinite import Diverged
from unrolled.wording import counted

C = TypeVar("C", bound=Callback)

_log = logging.getLogger(__name__)


class Rollback(Callback):
    """Returns to the weights of an earlier step when the loss spikes, and goes on with the data that come next.

    A loss spikes if it is NaN or infinite, or if it exceeds the mean of the latest losses by so many of their standard
    deviations, `patience` steps in a row. The loss of a step is the mean over all its predictions on all processes, so
    that all of them roll back together.

    Every `every` steps, weights, optimizer state, their average (`WeightAveraging`) and the history of `GradientClip`
    are copied to the CPU. A spike returns to the copy before the latest one, `every` to 2 × `every` steps back, since
    the latest may have been made when the weights were already bad. The data that were read since then are not read
    again. The position in the data, the step count, the learning rate and the random generators go on, so that a run
    ends when it was planned to. The carried state of truncated backpropagation is dropped.

    The two copies are a part of each checkpoint, which becomes about three times as large. A run that is resumed, from
    before or after a rollback, is exact.

    Args:
        every: number of steps between two copies.
        deviations: standard deviations above the mean of the history that make a spike.
        history: number of latest losses; a spike is detected once half of them are known.
        patience: number of steps in a row that spike. A loss that is not finite counts at once.
        max_rollbacks: greatest number of rollbacks in a run; the next spike ends it.

    Raises:
        ValueError: an option out of range; at the start of training: a strategy that shards the weights, several
            optimizers, or a `GradientClip` that comes before this callback.
        Diverged: one spike too many. The weights are those before this step.
    """

    def __init__(
        self,
        *,
        every: int = 100,
        deviations: float = 6.0,
        history: int = 128,
        patience: int = 3,
        max_rollbacks: int = 3,
    ) -> None:
        least = {
            "every": (every, 1),
            "history": (history, 2),
            "patience": (patience, 1),
            "max_rollbacks": (max_rollbacks, 1),
        }
        for name, (number, minimum) in least.items():
            if number < minimum:
                raise ValueError(f"{name}={number} must be {minimum} or more")
        if not 0 < deviations < math.inf:
            raise ValueError(f"deviations={deviations} must be positive and finite; 6 is far outside of usual losses")
        self.every, self.deviations, self.patience, self.max_rollbacks = every, deviations, patience, max_rollbacks
        self.losses: deque[float] = deque(maxlen=history)
        self.rollbacks = 0
        self.step_skipped = False  # whether the last step changed no weight; other callbacks read it
        self._loss: Tensor | None = None  # of the batches of a step so far, over all processes
        self._spikes: list[float] = []  # of the latest steps
        self._copies: list[dict[str, Any]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise ValueError(
                f"{type(trainer.strategy).__name__} shards the weights, which Rollback cannot copy; train with DDP, or "
                "without it: callbacks/rollback=none"
            )
        callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
        before = callbacks[: callbacks.index(self)] if self in callbacks else []
        if any(isinstance(callback, GradientClip) for callback in before):
            raise ValueError("GradientClip comes before Rollback, and would raise for a NaN; give Rollback first")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(trainer.optimizers) != 1:
            raise ValueError(f"Rollback needs one optimizer, this module has {len(trainer.optimizers)}")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Not after a step: other callbacks, such as WeightAveraging, have their turn then.
        self.step_skipped = False
        step = trainer.global_step
        due = step % self.every == 0 and not self._spikes and self._copies and self._copies[-1]["step"] != step
        if due or not self._copies:
            self._copy(trainer, pl_module)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        mean = loss.detach().double() / (1.0 if scaler is None else scaler.get_scale())
        if trainer.world_size > 1:
            torch.distributed.all_reduce(mean)
            mean /= trainer.world_size
        self._loss = mean if self._loss is None else self._loss + mean  # Lightning divides by the accumulated batches

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self._loss is None:
            return
        loss, self._loss = float(self._loss), None
        if math.isfinite(loss) and loss <= self._limit():
            self.losses.append(loss)
            self._spikes.clear()
            return
        self._spikes.append(loss)
        if math.isfinite(loss) and len(self._spikes) < self.patience:
            return
        if self.rollbacks == self.max_rollbacks:
            raise Diverged(
                f"step {trainer.global_step} (epoch {trainer.current_epoch}): {self._describe()}, after "
                f"{counted(self.rollbacks, 'rollback')} (max_rollbacks). Lower the learning rate, clip harder, or "
                "check the data"
            )
        optimizer.zero_grad(set_to_none=True)  # such parameters are not changed, and GradientClip has nothing to judge
        self.step_skipped = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.step_skipped:
            self._roll_back(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {
            "losses": list(self.losses),
            "rollbacks": self.rollbacks,
            "loss": None if self._loss is None else float(self._loss),
            "spikes": list(self._spikes),
            "copies": list(self._copies),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses = deque(state_dict["losses"], maxlen=self.losses.maxlen)
        self.rollbacks = state_dict["rollbacks"]
        loss = state_dict["loss"]
        self._loss = None if loss is None else torch.tensor(loss, dtype=torch.float64)
        self._spikes = list(state_dict["spikes"])
        self._copies = list(state_dict["copies"])

    def _limit(self) -> float:
        """Returns the greatest loss that is no spike."""
        if len(self.losses) < (self.losses.maxlen or 0) / 2:
            return math.inf
        return statistics.fmean(self.losses) + self.deviations * statistics.pstdev(self.losses)

    def _describe(self) -> str:
        """Describes a spike."""
        limit = self._limit()
        if not math.isfinite(self._spikes[-1]):
            return f"the loss is {self._spikes[-1]}"
        losses = ", ".join(f"{loss:.4g}" for loss in self._spikes)
        return f"the loss is {losses}, above {limit:.4g}, the mean of the latest and {self.deviations:g} deviations"

    def _copy(self, trainer: Trainer, module: LightningModule) -> None:
        """Copies the state to which a spike returns, and keeps the copy before."""
        average = _find(trainer, WeightAveraging)
        clip = _find(trainer, GradientClip)
        made = {
            "step": trainer.global_step,
            "losses": list(self.losses),
            "weights": module.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "average": None if average is None else average.averaged_state(),
            "norms": None if clip is None else list(clip.history),
        }
        self._copies = [*self._copies[-1:], _on_cpu(made)]

    def _roll_back(self, trainer: Trainer, module: LightningModule) -> None:
        good, said = self._copies[0], self._describe()
        module.load_state_dict(good["weights"])
        optimizer = trainer.optimizers[0]
        options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        optimizer.load_state_dict(copy.deepcopy(good["optimizer"]))
        for group, now in zip(optimizer.param_groups, options, strict=True):
            group.update(now)  # the learning rate goes on
        average, clip = _find(trainer, WeightAveraging), _find(trainer, GradientClip)
        if average is not None and good["average"] is not None:
            average.restore_average(good["average"])
        if clip is not None and good["norms"] is not None:
            clip.history = deque(good["norms"], maxlen=clip.history.maxlen)
        drop = getattr(module, "drop_carried_state", None)
        if drop is not None:
            drop()
        self._copies, self.losses = [good], deque(good["losses"], maxlen=self.losses.maxlen)
        self._spikes.clear()
        self.rollbacks += 1
        module.log("rollbacks", float(self.rollbacks))
        if trainer.is_global_zero:
            _log.warning(
                "step %d (epoch %d): %s; rolled back to the weights of step %d; the data of steps %d to %d are skipped "
                "(rollback %d of %d)",
                trainer.global_step,
                trainer.current_epoch,
                said,
                good["step"],
                good["step"] + 1,
                trainer.global_step,
                self.rollbacks,
                self.max_rollbacks,
            )


def _find(trainer: Trainer, kind: type[C]) -> C | None:
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)


def _on_cpu(value: Any) -> Any:
    """Returns a copy of nested dicts and lists, with its tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _on_cpu(each) for key, each in cast("Mapping[Any, Any]", value).items()}
    return [_on_cpu(each) for each in cast("Sequence[Any]", value)] if isinstance(value, (list, tuple)) else value
