"""A training problem around a network: what every task shares."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from unrolled.checkpoint import (
    FORMAT,
    KEY,
    TRUSTED,
    CheckpointError,
    build,
    first_nonfinite,
    load_tensors,
    save_tensors,
)
from unrolled.losses import Loss
from unrolled.processing.text.base import Codec
from unrolled.training.callbacks.best import take_over_best
from unrolled.training.callbacks.nonfinite import NonFiniteWeights
from unrolled.training.data.base import SequenceData
from unrolled.training.tasks.randomness import random_states, restore_random_states
from unrolled.training.tasks.schedules import MeasuredSteps, Schedule
from unrolled.training.tasks.state_store import StateStore
from unrolled.wording import article, counted

_SHOWN = 0.2  # seconds after which a bar is drawn anew


class SequenceTask(LightningModule, ABC):
    """Loss, metrics and optimizer around a network, which alone has parameters.

    Checkpoints hold plain data only: Lightning's own entries, the description of the network, the codec, and what a run
    needs to go on at its exact step (carried states, random generators). `load_bundle` reads them with torch alone.

    Args:
        network: its plain description, `{"_target_": "unrolled.RecurrentDecoder", …}`; see `unrolled.build`.
        codec: between text and ids.
        optimizer: a partial that takes parameter groups; None for a task that only scores.
        schedule: how the learning rate moves; None keeps it.
        l1: weight of Σ|w| in what is minimized, over weight matrices (biases are left alone).
        l2: weight of ½ Σw², likewise. An optimizer's weight_decay is the decoupled or built-in alternative.

    Raises:
        ValueError: a description that is not plain data, or that only a task's package could build; a negative penalty.
    """

    network: nn.Module
    files: ClassVar[Mapping[str, str]] = {}  # what a run leaves beyond every run's files: name and content

    def __init__(
        self,
        network: Mapping[str, Any],
        codec: Codec,
        optimizer: Callable[[Iterable[Any]], Optimizer] | None,
        schedule: Schedule | None = None,
        *,
        l1: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        super().__init__()
        _refuse_unloadable(network)
        if not (0 <= l1 < float("inf") and 0 <= l2 < float("inf")):
            raise ValueError(f"l1={l1}, l2={l2}: penalties are 0 or more")
        self.network = cast("nn.Module", build(network))
        self.codec = codec
        self.data: SequenceData | None = None
        self.carrier = StateStore()
        self.info: dict[str, Any] = {}
        self.reading: dict[str, Any] = {}  # what training reads, so that a resumed run reads the same
        self.notes: dict[str, str] = {}  # what must stand beside the numbers, such as how they were made
        self.listened = True  # whether what the running step logs is heard by anyone
        self._listened_at = -_SHOWN
        self.begun = False  # what goes wrong before is the configuration's fault
        self._description = network
        self._optimizer = optimizer
        self._schedule = schedule
        self._l1, self._l2 = l1, l2
        self._accumulated = False  # gradients that no optimizer step has used yet
        self._resumed: dict[str, Any] | None = None  # what a checkpoint holds, until training begins

    def attach(self, data: SequenceData) -> None:
        """Connects the task with the data that it will be fitted to or scored on.

        `run` calls it before the Trainer starts, so that neither has to look for the other through the Trainer. Call
        it yourself before `Trainer.fit` when you train without `run`.

        Raises:
            ValueError: options of the task and of the data that exclude each other.
        """
        self.data = data
        data.network = self.network

    def setup(self, stage: str) -> None:
        """Lightning's hook: attaches the Trainer's data where `attach` was not called."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if self.data is None and isinstance(data, SequenceData):
            self.attach(data)

    @abstractmethod
    def loss(self, batch: Any, loader: str) -> Loss:
        """The summed loss of a batch and the number of its predictions; `loader` names whose state is carried."""

    def commands(self, checkpoint: str) -> Sequence[str]:
        """What to type next with a trained network.

        They are printed, and work as they stand where the run was started. One that begins with # is a sentence.

        Args:
            checkpoint: its path as `python -m unrolled` takes it, and the packages to be trusted with it.
        """
        return ()

    def example(self) -> str | None:
        """See `SequenceData.example`: of the run's data, written into its folder where need be."""
        return None if self.data is None else self.data.example(Path(self.trainer.default_root_dir))

    def foreign_packages(self) -> list[str]:
        """Packages of classes that the checkpoint names and nobody trusts unasked."""
        named = [*_targets(self._description), *_targets(self.codec.to_dict())]
        return sorted({name.partition(".")[0] for name in named if not name.startswith(TRUSTED)})

    def penalty(self) -> Tensor | float:
        """What L1 and L2 regularization add to the mean loss."""
        if self._l1 == 0 and self._l2 == 0:
            return 0.0
        weights = [p for p in self.network.parameters() if p.dim() > 1]
        absolute = torch.stack([w.abs().sum() for w in weights]).sum() if self._l1 else 0.0
        square = torch.stack([w.square().sum() for w in weights]).sum() if self._l2 else 0.0
        return self._l1 * absolute + 0.5 * self._l2 * square

    def drop_carried_state(self) -> None:
        """Forgets what the training loader's last window left behind."""
        self.carrier.drop("train")

    def load_pretrained(self) -> None:
        """Gives parts of the network the weights that they bring along; called unless a checkpoint has them all."""

    def learning_rates(self) -> Sequence[tuple[Iterable[nn.Parameter], dict[str, Any]]]:
        """Parameters with options of the optimizer of their own, such as {"lr": 1e-5}; the first group has none."""
        return [((p for p in self.network.parameters() if p.requires_grad), {})]

    def configure_optimizers(self) -> Any:
        """The optimizer, each group of parameters in two, since weight decay is for matrices; and the schedule."""
        groups: list[dict[str, Any]] = []
        for parameters, options in self.learning_rates():
            listed = list(parameters)
            groups.append({"params": [p for p in listed if p.dim() > 1], **options})
            groups.append({"params": [p for p in listed if p.dim() <= 1], **options, "weight_decay": 0.0})
        if self._optimizer is None:
            raise ValueError("this task was made to score, without an optimizer; give it one to train")
        optimizer = self._optimizer([group for group in groups if group["params"]])
        if self._schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self._schedule.build(optimizer, self._num_steps())}

    def configure_callbacks(self) -> list[Callback]:
        """What a schedule needs to be stepped."""
        return [MeasuredSteps()]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what makes the file a bundle, and this rank's share of what makes a resumed run exact.

        Raises:
            NonFiniteWeights: a weight is NaN or infinite; a good checkpoint must not give way to that.
        """
        self._refuse_nonfinite()
        resume = self._standing()
        checkpoint[KEY] = {
            "format": FORMAT,
            "network": self._description,
            "codec": self.codec.to_dict(),
            "info": self.info,
            "resume": resume,
        }
        if self.global_rank > 0:  # Lightning writes rank 0's content only; no collectives here, one rank may save alone
            checkpoints = self.trainer.checkpoint_callback
            folder = Path(getattr(checkpoints, "dirpath", None) or self.trainer.default_root_dir)
            save_tensors(resume, _rank_file(folder, resume["batches"], self.global_rank))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up carried states, and keeps the rest for when training begins, when a run is resumed."""
        if KEY not in checkpoint or "resume" not in checkpoint[KEY]:
            return
        resume = checkpoint[KEY]["resume"]
        if self.trainer.state.fn != "fit":
            return
        if resume["ranks"] != self.trainer.world_size:
            raise ValueError(
                f"the checkpoint was written by {counted(resume['ranks'], 'process', 'processes')}, "
                f"this run has {self.trainer.world_size}; "
                "resume with as many, or start from its weights alone: init_from=PATH"
            )
        if self.global_rank > 0:
            folder = Path(str(self.trainer.ckpt_path)).parent
            resume = _read_rank_file(_rank_file(folder, resume["batches"], self.global_rank))
        take_over_best(self.trainer, checkpoint)
        self.carrier.load_state_dict(resume["carried"])
        self._resumed = resume

    def _standing(self) -> dict[str, Any]:
        """What this process needs to go on from here, beyond what Lightning saves."""
        gradients = {n: p.grad.cpu() for n, p in self.network.named_parameters() if p.grad is not None}
        loader: Any = self.trainer.train_dataloader
        return {
            "ranks": self.trainer.world_size,
            "reading": self.reading,
            "batches": self.trainer.fit_loop.total_batch_idx + 1,
            "carried": self.carrier.state_dict(),
            "random": random_states(),
            "loader": loader.state_dict() if hasattr(loader, "state_dict") else None,
            "gradients": gradients if self._accumulated else {},
        }

    def _refuse_nonfinite(self) -> None:
        bad = first_nonfinite(self.network)
        if bad is not None:
            raise NonFiniteWeights(
                f"step {self.trainer.global_step} (epoch {self.trainer.current_epoch}): {bad}. Nothing was saved over "
                "the last good checkpoint. Lower the learning rate, clip (callbacks/gradient_clip=norm), or look at "
                "the data"
            )

    def on_validation_start(self) -> None:
        """Stops a run whose weights are no longer finite before anything is computed with them."""
        if self.trainer.state.fn == "fit":
            self._refuse_nonfinite()

    def on_after_backward(self) -> None:
        self._accumulated = True

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self._accumulated = False

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Logs the learning rate that the batch's step will take."""
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
        due = every > 0 and (self.global_step + 1) % every == 0
        self.listened = due or time.monotonic() - self._listened_at >= _SHOWN
        if self.listened:
            self._listened_at = time.monotonic()
        self.log_step("learning_rate", float(self.trainer.optimizers[0].param_groups[0]["lr"]))

    def log_step(self, name: str, value: Tensor | float, **options: Any) -> None:
        """`log` for what a training step says of itself, in the steps that somebody listens to.

        Loggers listen every `log_every_n_steps`, a bar as often as it is drawn. Lightning takes up to a millisecond
        for each value that is logged, whether or not it goes anywhere: with a small network a fifth of the step.
        """
        if self.listened:
            self.log(name, value, **options)

    def on_fit_start(self) -> None:
        self.begun = True

    def on_train_start(self) -> None:
        """Restores the place in the data, half-done gradients, and last, after all that drew from them, generators."""
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            return
        # Lightning restores a loader in the midst of an epoch only (2.6).
        if resumed["loader"] is not None:
            loader: Any = self.trainer.train_dataloader
            loader.load_state_dict(resumed["loader"])
        for name, gradient in resumed["gradients"].items():
            parameter = self.network.get_parameter(name)
            parameter.grad = gradient.to(parameter)
        self._accumulated = bool(resumed["gradients"])
        restore_random_states(resumed["random"])

    def _num_steps(self) -> int | float:
        """Optimizer steps of the whole run; infinite without an end.

        Not Trainer.estimated_stepping_batches: it sets the loaders up before their places are restored, and a resumed
        run would read its epoch from the beginning again (Lightning 2.6).
        """
        return self.trainer.estimated_stepping_batches if self.data is None else num_steps(self.trainer, self.data)


def num_steps(trainer: Trainer, data: Any) -> int | float:
    """Optimizer steps of the whole run on a data module that is attached to its trainer; infinite without an end."""
    most = math.inf if trainer.max_steps == -1 else trainer.max_steps
    if trainer.max_epochs is None or trainer.max_epochs == -1:
        return most
    return min(most, steps_per_epoch(trainer, data) * trainer.max_epochs)


def steps_per_epoch(trainer: Trainer, data: Any) -> int:
    """Optimizer steps of an epoch."""
    batches, limit = len(data.train_dataloader()), trainer.limit_train_batches
    taken = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    return math.ceil(taken / trainer.accumulate_grad_batches)


def _refuse_unloadable(network: Mapping[str, Any]) -> None:
    if isinstance(network, nn.Module):
        raise ValueError("network: give its plain description, not the module; the checkpoint is written from it")
    _refuse_objects(network, "network")
    for target in _targets(network):
        if target.startswith("unrolled_tasks."):
            raise ValueError(
                f"network: {target} lives in a task's package, so a project that has only `unrolled` could not load "
                "it; put what has parameters into a module of its own package, outside unrolled_tasks"
            )


def _refuse_objects(value: Any, path: str) -> None:
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[str, Any]", value).items():
            _refuse_objects(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(cast("Sequence[Any]", value)):
            _refuse_objects(item, f"{path}[{index}]")
    elif value is not None and not isinstance(value, (str, int, float, bool)):
        raise ValueError(f"{path}: a checkpoint holds plain data only, not {article(type(value).__name__)}")


def _targets(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        splits = cast("Mapping[str, Any]", value)
        if "_target_" in splits:
            yield splits["_target_"]
        value = list(splits.values())
    if isinstance(value, (list, tuple)):
        for item in cast("Sequence[Any]", value):
            yield from _targets(item)


def _rank_file(folder: Path, batches: int, rank: int) -> Path:
    return folder / "ranks" / f"batch={batches}-rank={rank}.pt"


def _read_rank_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: what this process carried at that step is missing; start from the weights alone: init_from=PATH"
        )
    return load_tensors(path)
