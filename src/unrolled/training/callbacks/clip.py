"""Gradient clipping, and the handling of non-finite gradients.

Lightning calls `on_before_optimizer_step` once per optimizer step, on the accumulated gradient, after mixed precision
has been unscaled and after the gradients have been averaged over processes.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm
from torch.optim import LBFGS, Optimizer

from unrolled.training.callbacks.gathering import local_shard
from unrolled.training.callbacks.nonfinite import NonFiniteGradient


class _GradientNorms(NamedTuple):
    """Norms of one step's gradient. The floats are copied from the device in a single transfer."""

    device_norms: Tensor  # (groups,)
    norms: list[float]
    total: float
    peak: float  # largest absolute entry; 0 unless `value` is given
    finite: bool  # on every process


class GradientClip(Callback):
    """Clips the gradient of every optimizer step, logs its norm, and skips or raises on non-finite gradients.

    Give one of `norm`, `value` and `percentile`, or none of them to log the norm only. Logs `gradient/norm_before`,
    `gradient/norm_after`, `gradient/clipped_share` (of all finite steps so far, 0 to 1) and, after the first skip,
    `gradient/skipped_steps` (so far).

    A skipped step changes neither parameters nor optimizer state (moments, step counters, weight decay): its gradients
    are set to None, which torch.optim ignores. Schedulers with `interval: step` are not stepped, and the carried state
    of truncated backpropagation is dropped (`drop_carried_state()` of the module, if it has this method), since a NaN
    in that state would affect every later window. `trainer.global_step`, and with it `max_steps`, counts attempts:
    updates = global_step − skipped. Either all processes skip a step, or none does.

    Under fp16 with a GradScaler, an overflow is part of the search for a loss scale: such a step is skipped in the same
    way and counted in `overflows`. It never raises and is not counted in `skipped`.

    The norm of sharded gradients (DTensor, ModelParallelStrategy) is taken over all shards. This is tested with two CPU
    processes, not with several GPUs.

    Args:
        norm: maximum norm of the gradient; a larger gradient is scaled down to it (Pascanu et al. 2013, algorithm 1).
        value: maximum absolute entry; larger entries are clamped, which changes the gradient's direction.
        percentile: 0 to 100; the maximum norm is this percentile of the norms so far, including the current one
            (AutoClip: Seetharaman et al. 2020, "AutoClip: Adaptive gradient clipping for source separation networks").
        groups: limit `norm` separately in each parameter group of the optimizer, not over all of them.
        norm_type: order p of the norm; inf for the largest absolute entry.
        history: number of latest norms that `percentile` uses.
        min_history: number of norms that `percentile` needs before it clips.
        nonfinite: "raise" ends training at the first non-finite gradient; "skip" skips the step.
        max_skips: maximum number of consecutive skips; the next one raises.

    Raises:
        ValueError: options that exclude each other or are out of range; at the start of training: clipping by the
            Trainer as well, two such callbacks, manual optimization, or a strategy or optimizer that is not supported.
        NonFiniteGradient: as `nonfinite` and `max_skips` decide; names the first such parameter. The weights are
            unchanged.
    """

    def __init__(
        self,
        *,
        norm: float | None = None,
        value: float | None = None,
        percentile: float | None = None,
        groups: bool = False,
        norm_type: float = 2.0,
        history: int = 1000,
        min_history: int = 10,
        nonfinite: Literal["raise", "skip"] = "raise",
        max_skips: int = 10,
    ) -> None:
        _check_limits(norm, value, percentile, groups)
        _check_range("norm_type", norm_type, 1.0, "a norm of order 1, 2, … or inf")
        _check_range("min_history", min_history, 1, "at least one norm")
        _check_range("history", history, min_history, "no fewer than min_history")
        _check_range("max_skips", max_skips, 1, "at least one; nonfinite='raise' allows none")
        if nonfinite not in ("raise", "skip"):
            raise ValueError(f"nonfinite={nonfinite!r} is unknown; give 'raise' or 'skip'")
        self.norm = norm
        self.value = value
        self.percentile = percentile
        self.groups = groups
        self.norm_type = float(norm_type)
        self.min_history = min_history
        self.nonfinite = nonfinite
        self.max_skips = max_skips
        self.history: deque[float] = deque(maxlen=history)
        self.steps = 0  # finite ones
        self.clipped = 0
        self.skipped = 0
        self.overflows = 0
        self.step_skipped = False  # whether the last step was skipped; other callbacks read it
        self._consecutive_skips = 0
        self._held_schedulers: list[Any] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            _check_trainer(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            _check_optimizer(optimizer, scaled=_scaler(trainer) is not None)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.step_skipped = False

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        groups = [[p for p in group["params"] if p.grad is not None] for group in optimizer.param_groups]
        if not self.groups:
            groups = [[p for group in groups for p in group]]
        norms_read = self._measure(groups, pl_module.device)
        if not norms_read.finite:
            self._skip_step(trainer, pl_module, optimizer)
        elif any(groups):  # a batch without a loss has no gradient
            self._clip(pl_module, groups, norms_read)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning has updated the schedulers of this step before this call.
        for config in self._held_schedulers:
            config.interval = "step"
        self._held_schedulers = []

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "clipped": self.clipped,
            "skipped": self.skipped,
            "overflows": self.overflows,
            "consecutive_skips": self._consecutive_skips,
            "history": list(self.history),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = state_dict["steps"]
        self.clipped = state_dict["clipped"]
        self.skipped = state_dict["skipped"]
        self.overflows = state_dict["overflows"]
        self._consecutive_skips = state_dict["consecutive_skips"]
        self.history = deque(state_dict["history"], maxlen=self.history.maxlen)

    def _measure(self, groups: list[list[Tensor]], device: torch.device) -> _GradientNorms:
        """Computes the norms on the device and combines all processes, with one host synchronization."""
        device_norms = torch.stack([_total_norm(group, self.norm_type, device) for group in groups])
        total = torch.linalg.vector_norm(device_norms, self.norm_type) if len(groups) > 1 else device_norms[0]
        every = [parameter for group in groups for parameter in group]
        peak = total.new_zeros(()) if self.value is None else _total_norm(every, math.inf, device).to(total)
        bad = (~total.isfinite()).to(total)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(bad, op=torch.distributed.ReduceOp.MAX)
        *norms, total_read, peak_read, bad_read = torch.stack([*device_norms, total, peak, bad]).tolist()
        return _GradientNorms(device_norms, norms, total_read, peak_read, not bad_read)

    def _limit(self) -> float | None:
        """Returns the maximum norm of this step, or None for no limit."""
        if self.percentile is None:
            return self.norm
        if len(self.history) < self.min_history:
            return None
        return float(np.percentile(self.history, self.percentile))

    def _clip(self, module: LightningModule, groups: list[list[Tensor]], norms_read: _GradientNorms) -> None:
        self._consecutive_skips = 0
        self.steps += 1
        if self.percentile is not None:
            self.history.append(norms_read.total)
        limit = self._limit()
        after: float | Tensor = norms_read.total
        if limit is not None:
            for group, norm in zip(groups, norms_read.device_norms.unbind(), strict=True):
                clip_grads_with_norm_(group, limit, norm)
            self.clipped += any(norm > limit for norm in norms_read.norms)
            after = _joint_norm([_scaled(norm, limit) for norm in norms_read.norms], self.norm_type)
        elif self.value is not None and norms_read.peak > self.value:
            every = [parameter for group in groups for parameter in group]
            clip_grad_value_(every, self.value)
            self.clipped += 1
            after = _total_norm(every, self.norm_type, module.device)  # stays on the device: no second synchronization
        log = getattr(module, "log_step", module.log)  # SequenceTask logs some steps only; other modules all of them
        log("gradient/norm_before", norms_read.total, prog_bar=True)
        log("gradient/norm_after", after)
        log("gradient/clipped_share", self.clipped / self.steps)

    def _skip_step(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> None:
        """Skips the step or raises. The parameters don't change in either case."""
        drop = getattr(module, "drop_carried_state", None)
        if drop is not None:
            drop()
        if _scaler(trainer) is not None:
            self.overflows += 1
        else:
            self._consecutive_skips += 1
            if self.nonfinite == "raise" or self._consecutive_skips > self.max_skips:
                raise NonFiniteGradient(self._error_message(trainer, module))
            self.skipped += 1
        optimizer.zero_grad(set_to_none=True)
        self.step_skipped = True
        for config in trainer.lr_scheduler_configs:
            # Lightning steps schedulers with interval "step" after the batch, even if the optimizer step was skipped.
            if config.interval == "step" and not config.reduce_on_plateau:
                config.interval = "held"
                self._held_schedulers.append(config)
        module.log("gradient/skipped_steps", float(self.skipped + self.overflows))

    def _error_message(self, trainer: Trainer, module: LightningModule) -> str:
        where = f"step {trainer.global_step} (epoch {trainer.current_epoch})"
        if self.nonfinite == "raise":
            remedy = (
                "Nothing was updated. Lower the learning rate, clip (GradientClip(norm=1.0)), check the batch, "
                "or skip such steps: GradientClip(nonfinite='skip')"
            )
        else:
            remedy = (
                f"These are {self._consecutive_skips} such steps in a row, and max_skips={self.max_skips}: the weights "
                "or the data are invalid. Lower the learning rate, or resume from an earlier checkpoint"
            )
        return f"{where}: {_first_nonfinite(module)}. {remedy}."


def _total_norm(parameters: Iterable[Tensor], norm_type: float, device: torch.device) -> Tensor:
    """Returns the norm of all gradients as one vector, a scalar on `device`, over all shards of sharded gradients."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if norm_type == math.inf and any(isinstance(gradient, DTensor) for gradient in gradients):
        return _largest_entry(gradients, device)
    norm = get_total_norm(gradients, norm_type)
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).to(device)


def _largest_entry(gradients: Sequence[Tensor], device: torch.device) -> Tensor:
    """Returns the largest absolute entry of sharded gradients; torch (2.13) has no such norm of an empty shard."""
    shards = [shard for gradient in gradients if (shard := local_shard(gradient)).numel() > 0]
    largest = get_total_norm(shards, math.inf).to(device).nan_to_num(nan=math.inf)  # a maximum may lose NaN
    torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
    return largest


def _scaled(norm: float, limit: float) -> float:
    """Returns the norm after torch's clip_grads_with_norm_, which divides by norm + 1e-6."""
    return norm * min(1.0, limit / (norm + 1e-6))


def _joint_norm(norms: list[float], norm_type: float) -> float:
    return float(np.linalg.norm(norms, norm_type))


def _scaler(trainer: Trainer) -> Any | None:
    return getattr(trainer.precision_plugin, "scaler", None)


def _first_nonfinite(module: LightningModule) -> str:
    """Describes the first parameter whose gradient is not finite on this process."""
    for name, parameter in module.named_parameters():
        gradient = None if parameter.grad is None else local_shard(parameter.grad)
        if gradient is not None and not bool(gradient.isfinite().all()):
            return f"the gradient of {name} is {'nan' if bool(gradient.isnan().any()) else 'inf'}"
    norm = get_total_norm([local_shard(p.grad) for p in module.parameters() if p.grad is not None])
    if bool(norm.isfinite()):
        return "the gradient of another process is not finite; its message names the parameter"
    return "every gradient is finite, but their norm overflows its floating point type (inf)"


def _check_limits(norm: float | None, value: float | None, percentile: float | None, groups: bool) -> None:
    limits = {"norm": norm, "value": value, "percentile": percentile}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if len(given) > 1:
        text = ", ".join(f"{name}={limit}" for name, limit in given.items())
        raise ValueError(f"{text}: these exclude each other; give one of norm, value and percentile")
    for name, limit in given.items():
        if not 0 < limit < math.inf:
            raise ValueError(f"{name}={limit} must be positive and finite; leave it out to measure only")
    if percentile is not None and percentile > 100:
        raise ValueError(f"percentile={percentile} must lie between 0 and 100")
    if groups and norm is None:
        raise ValueError("groups=True limits the norm in each parameter group; give norm as well")


def _check_range(name: str, value: float, least: float, meaning: str) -> None:
    if not value >= least:  # also true of NaN
        raise ValueError(f"{name}={value} must be {least} or more: {meaning}")


def _check_trainer(trainer: Trainer, module: LightningModule) -> None:
    if trainer.gradient_clip_val:
        raise ValueError(
            f"Trainer(gradient_clip_val={trainer.gradient_clip_val}) and GradientClip would clip the same gradient "
            "twice; remove gradient_clip_val (trainer.gradient_clip_val=null) or the callback"
        )
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
    count = sum(isinstance(callback, GradientClip) for callback in callbacks)
    if count > 1:
        raise ValueError(f"{count} GradientClip callbacks would clip the same gradient; keep one")
    if not module.automatic_optimization:
        raise ValueError(
            f"{type(module).__name__} uses manual optimization (automatic_optimization=False), where a gradient may be "
            "incomplete or scaled; use automatic optimization, or clip in its training_step"
        )
    if isinstance(trainer.strategy, FSDPStrategy):
        raise ValueError(
            "FSDPStrategy hides the norm of the whole gradient from callbacks; "
            "use lightning.pytorch.strategies.ModelParallelStrategy, which shards with FSDP2"
        )
    if isinstance(trainer.strategy, DeepSpeedStrategy):
        raise ValueError(
            "DeepSpeed manages its gradients; set gradient_clipping in its own configuration and remove GradientClip"
        )


def _check_optimizer(optimizer: Optimizer, *, scaled: bool) -> None:
    if isinstance(optimizer, LBFGS):
        raise ValueError(
            "LBFGS evaluates the gradient several times per step and cannot be clipped; use another optimizer"
        )
    if scaled and getattr(optimizer, "_step_supports_amp_scaling", False):
        raise ValueError(
            f"a fused {type(optimizer).__name__} unscales fp16 gradients by itself, after clipping; "
            "give the optimizer fused=False, or train with precision=bf16-mixed"
        )
