"""The base class of all tasks."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn

from unrolled.backends.speeds import SPEEDS
from unrolled.checkpoint import FORMAT, KEY, first_nonfinite
from unrolled.descriptions import TRUSTED, build
from unrolled.losses import Loss
from unrolled.processing.transform import Processor
from unrolled.training.callbacks.best import copy_best_checkpoints
from unrolled.training.callbacks.gathering import gather_on_first, local_shard, max_over_ranks
from unrolled.training.callbacks.nonfinite import NonFiniteWeights
from unrolled.training.configuration.flat import flat_options
from unrolled.training.data.base import SequenceData
from unrolled.training.tasks.descriptions import check_loadable, class_names
from unrolled.training.tasks.evaluation import Evaluation, Scored
from unrolled.training.tasks.optimization import Optimization, ParameterGroups
from unrolled.training.tasks.process_state import state_of_process
from unrolled.training.tasks.randomness import get_rng_states, set_rng_states
from unrolled.training.tasks.schedules import PlateauStepper, num_steps
from unrolled.training.tasks.sharding import as_shard, shard
from unrolled.training.tasks.state_store import StateStore

_REFRESH_SECONDS = 0.2  # seconds between two updates of the progress bar


class SequenceTask(LightningModule, ABC):
    """A LightningModule with the loss, metrics and optimizer of a network. Only the network has parameters.

    Checkpoints contain plain data only: Lightning's own entries, the description of the network, the processor, and the
    state needed to resume a run at its exact step (carried states, random generators). `load_bundle` reads them with
    torch alone.

    Args:
        network: description of the network, `{"_target_": "unrolled.AutoregressiveDecoder", …}`; see `unrolled.build`.
        processor: the transforms of sources and targets.
        optimization: how the network is trained. Its fields can be arguments, too: see `flat_options`.

    Raises:
        ValueError: a description that is not plain data, or that only a task's package could build.
    """

    network: nn.Module
    files: ClassVar[Mapping[str, str]] = {}  # additional files of a run's folder: name and content
    test_loaders: ClassVar[Sequence[str]] = ("test",)  # names of the data's test loaders, in order
    progress_metrics: Sequence[str] = ()  # validation metrics of the progress bar, besides the monitored one

    @flat_options
    def __init__(
        self, network: Mapping[str, Any], processor: Processor, optimization: Optimization = Optimization()
    ) -> None:
        super().__init__()
        check_loadable(network)
        self.network = cast("nn.Module", build(network))
        self.processor = processor
        self.data: SequenceData | None = None
        self.state_store = StateStore()
        self.evaluation = Evaluation()
        self.info: dict[str, Any] = {}
        self.data_settings: dict[str, Any] = {}  # settings of the training data, which a resumed run must share
        self.notes: dict[str, str | float] = {}  # printed with the metrics, such as how they were computed
        self.logs_step = True  # whether the current step's values go to a logger or the progress bar
        self._last_logged = -_REFRESH_SECONDS
        self.fit_started = False  # errors before are mistakes in the configuration
        self._description = network
        self.optimization = optimization
        self._accumulated = False  # gradients that no optimizer step has used yet
        self._resumed: dict[str, Any] | None = None  # the checkpoint's state, until training begins

    def attach(self, data: SequenceData) -> None:
        """Connects the task with the data for training or scoring.

        `run` calls it before the Trainer starts, so that task and data don't access each other through the Trainer.
        Without `run`, call it before `Trainer.fit`.

        Raises:
            ValueError: conflicting options of the task and the data.
        """
        self.data = data
        data.network = self.network

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the data of a copy, such as that of WeightAveraging: they may be large, or have open files."""
        return {**super().__getstate__(), "data": None}

    def setup(self, stage: str) -> None:
        """Attaches the Trainer's data if `attach` was not called."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if self.data is None and isinstance(data, SequenceData):
            self.attach(data)

    @abstractmethod
    def loss(self, batch: Any, loader: str) -> Loss:
        """Returns the summed loss of a batch and its number of predictions.

        Args:
            batch: a batch of the task's data.
            loader: name of the loader, whose carried state is used.
        """

    def score(self, batch: Any, loader: str) -> Scored:
        """Returns what is evaluated of a batch: the loss, by default.

        Args:
            batch: a batch of the task's data.
            loader: "validation" or one of `test_loaders`.
        """
        return Scored({"loss": self.loss(batch, loader)})

    def scores(self, means: Mapping[str, float], rows: Sequence[Any]) -> dict[str, float]:
        """Returns the metrics of a split, by name: the means, by default.

        Args:
            means: mean of each sum of `score` over the split.
            rows: all rows of `score`, in the order of the examples; each example once.
        """
        return dict(means)

    def report(self, rows: Sequence[Any], folder: Path) -> None:
        """Writes files about the rows of a test; none by default. Not called if there are no rows."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluation.add(self.score(batch, "validation"))

    def on_validation_epoch_end(self) -> None:
        self.evaluation.finish(self, "validation")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.evaluation.add(self.score(batch, self.test_loaders[dataloader_idx]))

    def on_test_epoch_end(self) -> None:
        self.evaluation.finish(self, "test")

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Returns example commands for a trained network, printed at the end of a run.

        They work as printed in the directory where the run was started. A line that begins with # is a comment.

        Args:
            checkpoint: the path of the checkpoint as an argument of `python -m unrolled`, with --trust options.
        """
        return ()

    def example(self) -> str | None:
        """Returns `SequenceData.example` of the run's data; a file is written to the run's folder if needed."""
        return None if self.data is None else self.data.example(Path(self.trainer.default_root_dir))

    def foreign_packages(self) -> list[str]:
        """Returns the packages of the classes in the checkpoint that are not trusted by default."""
        named = [*class_names(self._description), *class_names(self.processor.to_dict())]
        return sorted({name.partition(".")[0] for name in named if not name.startswith(TRUSTED)})

    def penalty(self) -> Tensor | float:
        """Returns the L1 and L2 regularization terms, which are added to the mean loss."""
        return self.optimization.penalty(self.network)

    def drop_carried_state(self) -> None:
        """Drops the carried state of the training loader."""
        self.state_store.drop("train")

    def load_pretrained(self) -> None:
        """Loads pretrained weights into parts of the network. Not called if a checkpoint gives all weights."""

    def learning_rates(self) -> ParameterGroups:
        """Returns parameter groups with their own optimizer options, such as {"lr": 1e-5}; none for the first group."""
        return [((p for p in self.network.parameters() if p.requires_grad), {})]

    def configure_optimizers(self) -> Any:
        """Builds the optimizer and the schedule."""
        groups = self.optimization.split(self.network, self.learning_rates())
        return self.optimization.configure(groups, self._num_steps())

    def configure_model(self) -> None:
        """Shards the network if the strategy has a mesh of processes (`trainer=fsdp`).

        Raises:
            ValueError: a penalty, which would need all weights at once.
        """
        if self.device_mesh is None:
            return
        if self.optimization.l1 or self.optimization.l2:
            raise ValueError(
                f"task.l1={self.optimization.l1}, task.l2={self.optimization.l2}: a penalty needs all weights at once, "
                "and trainer=fsdp shards them; use optimizer.weight_decay, or trainer=ddp"
            )
        shard(self, self.network, self.device_mesh["data_parallel"], whole=self.stepped_parts())

    def stepped_parts(self) -> tuple[nn.Module, ...]:
        """Returns the parts of the network whose number of calls in a training step depends on the batch.

        A sharded network keeps their weights gathered during a training step.
        """
        return ()

    def configure_callbacks(self) -> list[Callback]:
        """Returns the callback that steps schedules with a monitored metric."""
        return [PlateauStepper()]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the description of the network, the processor, and the state of all processes for resuming.

        A collective operation, as saving a checkpoint is (`Trainer.save_checkpoint`).

        Raises:
            NonFiniteWeights: a weight is NaN or infinite, and must not overwrite a good checkpoint.
        """
        self._check_finite()
        checkpoint[KEY] = {
            "format": FORMAT,
            "network": self._description,
            "processor": self.processor.to_dict(),
            "info": self.info,
            "resume": self._resume_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the state of a resumed run until training begins."""
        if self.trainer.state.fn != "fit" or KEY not in checkpoint or "resume" not in checkpoint[KEY]:
            return
        copy_best_checkpoints(self.trainer, checkpoint)
        self._resumed = checkpoint[KEY]["resume"]

    def _resume_state(self) -> dict[str, Any]:
        """Returns the state of all processes for resuming, beyond what Lightning saves. Rank 0's is saved."""
        # During a sharded run's validation, `network` is a copy without gradients.
        trained: nn.Module = getattr(self.trainer.strategy, "sharded_network", None) or self.network
        gradients = {n: local_shard(p.grad).cpu() for n, p in trained.named_parameters() if p.grad is not None}
        loader: Any = self.trainer.train_dataloader
        own = {
            "carried": self.state_store.state_dict(),
            "random": get_rng_states(),
            "gradients": gradients if self._accumulated else {},
        }
        return {
            "data_settings": self.data_settings,
            "batches": self.trainer.fit_loop.total_batch_idx + 1,
            "backends": SPEEDS.taken,
            "loader": loader.state_dict() if hasattr(loader, "state_dict") else None,
            "processes": gather_on_first(own),
        }

    def _check_finite(self) -> None:
        weights = {name: local_shard(weight) for name, weight in self.network.state_dict().items()}
        bad = first_nonfinite(self.network, weights)
        if isinstance(self.trainer.strategy, ModelParallelStrategy):  # each process has other weights
            (found,) = max_over_ranks(self.trainer, bad is not None)
            bad = bad or ("another process holds nan or inf" if found else None)
        if bad is not None:
            raise NonFiniteWeights(
                f"step {self.trainer.global_step} (epoch {self.trainer.current_epoch}): {bad}. The last good "
                "checkpoint was kept. Lower the learning rate, clip (callbacks/gradient_clip=norm), or check the data"
            )

    def on_validation_start(self) -> None:
        """Ends a run with non-finite weights before they are validated."""
        if self.trainer.state.fn == "fit":
            self._check_finite()
        self.begin_evaluation(("validation",))

    def on_test_start(self) -> None:
        self.begin_evaluation(self.test_loaders)

    def begin_evaluation(self, loaders: Sequence[str]) -> None:
        """Drops what is left of an evaluation that was interrupted, and the carried states of the loaders."""
        self.evaluation.reset()
        for loader in loaders:
            self.state_store.drop(loader)

    def on_after_backward(self) -> None:
        self._accumulated = True

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self._accumulated = False

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Logs the learning rate of the batch's step."""
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
        due = every > 0 and (self.global_step + 1) % every == 0
        self.logs_step = due or time.monotonic() - self._last_logged >= _REFRESH_SECONDS
        if self.logs_step:
            self._last_logged = time.monotonic()
        self.log_step("learning_rate", float(self.trainer.optimizers[0].param_groups[0]["lr"]))

    def log_step(self, name: str, value: Tensor | float, **options: Any) -> None:
        """Logs a value of a training step, in the steps where a logger or the progress bar uses it.

        Loggers use every `log_every_n_steps`-th step, the progress bar a step after each refresh. Lightning needs up to
        a millisecond for each logged value, used or not: with a small network a fifth of the step.
        """
        if self.logs_step:
            self.log(name, value, **options)

    def on_fit_start(self) -> None:
        self.fit_started = True
        if self.trainer.world_size > 1:  # not earlier: Lightning seeds all processes alike when it connects them
            torch.manual_seed(torch.initial_seed() + self.global_rank)  # dropout differs between processes

    def on_train_start(self) -> None:
        """Restores the position in the data, carried states, accumulated gradients and, last, the random generators."""
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            return
        changed = len(resumed["processes"]) != self.trainer.world_size
        sharded = isinstance(self.trainer.strategy, ModelParallelStrategy)
        if changed and sharded and resumed["processes"][0]["gradients"]:
            raise ValueError(
                f"{self.trainer.ckpt_path} was saved within an optimizer step, when {len(resumed['processes'])} "
                "processes held shards of its gradient; resume with as many, or from another checkpoint"
            )
        plan: Any = getattr(self.trainer.train_dataloader, "plan", None)
        own = state_of_process(
            resumed["processes"],
            self.global_rank,
            self.trainer.world_size,
            rows=getattr(plan, "rows", None),
            seed=(int(self.info.get("seed", 0)), resumed["batches"]),
        )
        self.state_store.load_state_dict(own["carried"])
        # Lightning restores a loader only within an epoch (2.6).
        if resumed["loader"] is not None:
            loader: Any = self.trainer.train_dataloader
            loader.load_state_dict(resumed["loader"])
        for name, gradient in own["gradients"].items():
            parameter = self.network.get_parameter(name)
            parameter.grad = as_shard(gradient.to(local_shard(parameter)), like=parameter)
        self._accumulated = bool(own["gradients"])
        set_rng_states(own["random"])

    def _num_steps(self) -> int | float:
        """Returns the optimizer steps of the whole run; infinite without an end.

        Trainer.estimated_stepping_batches sets up the loaders before their positions are restored, so that a resumed
        run would read its epoch from the beginning (Lightning 2.6).
        """
        return self.trainer.estimated_stepping_batches if self.data is None else num_steps(self.trainer, self.data)
