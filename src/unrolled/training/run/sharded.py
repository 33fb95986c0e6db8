"""The strategy of runs with sharded weights (`trainer=fsdp`)."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from unrolled.training.tasks.base import SequenceTask
from unrolled.training.tasks.sharding import gathered


class ShardedStrategy(ModelParallelStrategy):
    """Shards weights, gradients and optimizer states over all processes (FSDP2: Zhao et al. 2023, "PyTorch FSDP").

    Losses, gradients and updates equal those of `strategy=ddp`. A process stores a share of the weights and of the
    optimizer's state, and gathers the weights of a part of the network while it runs; see
    `unrolled.training.tasks.sharding`. Evaluations run on a whole copy of the weights, without gradients.

    Checkpoints are those of other strategies: one file with all weights, which process 0 writes.
    """

    def __init__(self) -> None:
        super().__init__(data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False)
        self.sharded_network: nn.Module | None = None  # during an evaluation

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        self._release()  # after an evaluation that was interrupted
        super().setup(trainer)

    def on_validation_start(self) -> None:
        self._gather()

    def on_validation_end(self) -> None:
        self._release()

    def on_test_start(self) -> None:
        self._gather()

    def on_test_end(self) -> None:
        self._release()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        with self._sharded():
            return super().lightning_module_state_dict()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Returns the optimizer's own state dict with whole tensors, on the CPU of process 0.

        Lightning's own method numbers parameters by their order in the network, not in the optimizer, so that the file
        would be another network's for every other strategy.
        """
        state = optimizer.state_dict()
        whole = tree_map_only(Tensor, partial(_whole, kept=self.is_global_zero), state["state"])
        return {**state, "state": whole}

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Loads weights and optimizer states from a file with all of them; returns the rest of its content.

        Lightning's own method reads the file without the `CheckpointIO`, which verifies it.
        """
        content: dict[str, Any] = self.checkpoint_io.load_checkpoint(self.broadcast(checkpoint_path))
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(cast("nn.Module", self.model), content.pop("state_dict"), options=options)
        saved: list[dict[str, Any]] = content.get("optimizer_states", [])
        for optimizer, state in zip(self.optimizers, saved, strict=False):  # a test has no optimizers
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            of_parameters: dict[int, dict[str, Any]] = state["state"]
            sharded = {
                index: {name: _distributed(value, parameters[index]) for name, value in of_one.items()}
                for index, of_one in of_parameters.items()
            }
            optimizer.load_state_dict({**state, "state": sharded})
        return content

    def _gather(self) -> None:
        task = cast("SequenceTask", self.lightning_module)
        self.sharded_network, task.network = task.network, gathered(task.network)

    def _release(self) -> None:
        if self.sharded_network is not None:
            cast("SequenceTask", self.lightning_module).network = self.sharded_network
            self.sharded_network = None

    @contextmanager
    def _sharded(self) -> Generator[None]:
        """Puts the sharded network back in its place, also during an evaluation, so that it can be saved."""
        task = cast("SequenceTask", self.lightning_module)
        present = task.network
        task.network = self.sharded_network or present
        try:
            yield
        finally:
            task.network = present


def _whole(tensor: Tensor, *, kept: bool) -> Tensor | None:
    """Gathers a tensor, if it is sharded; returns it on the CPU, or None where it is not kept."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.cpu() if kept else None


def _distributed(value: Any, parameter: Tensor) -> Any:
    """Shards a whole tensor of an optimizer's state as its parameter; returns other values unchanged."""
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    on_device = value.to(parameter.device_mesh.device_type)
    return distribute_tensor(on_device, parameter.device_mesh, parameter.placements, src_data_rank=None)


StrategyRegistry.register("fsdp2", ShardedStrategy, "shards weights, gradients and optimizer states (FSDP2)")
