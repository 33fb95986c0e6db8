"""A training run on two CPU processes, for test_two_processes: python two_processes.py FOLDER."""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from unrolled.training.callbacks.clip import GradientClip
from unrolled.training.callbacks.rollback import Rollback
from unrolled.training.callbacks.throughput import Throughput


class Batch(NamedTuple):
    values: Tensor
    lengths: Tensor


class Poisoned(LightningModule):
    """Step 1: a loss of NaN on rank 1. Step 3: a gradient of NaN on rank 1 alone, after the processes averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.carried_drops: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        poison = math.nan if batch_idx == 1 and self.global_rank == 1 else 1.0
        return (self.weight * batch.values * (self.global_rank + 1)).sum() * poison

    def on_after_backward(self) -> None:
        if self.trainer.global_step == 3 and self.global_rank == 1:
            assert self.weight.grad is not None
            self.weight.grad[0] = math.nan

    def drop_carried_state(self) -> None:
        self.carried_drops.append(self.trainer.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.1)


class Report(Callback):
    """Writes what a process saw, and the norm of a gradient that is sharded over both."""

    def __init__(self, folder: Path, clip: GradientClip, throughput: Throughput) -> None:
        self.folder, self.clip, self.throughput = folder, clip, throughput
        self.weights: list[list[float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.weights.append(pl_module.state_dict()["weight"].tolist())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        report = {
            "weights": self.weights,
            "clip": self.clip.state_dict(),
            "drops": pl_module.carried_drops,
            "sharded_norm": sharded_norm(),
            "largest": largest_of_shards(),
            "characters": self.throughput.total,
        }
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(report))


class Spiking(Poisoned):
    """Step 14: a loss that spikes on rank 1 alone."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        spikes = batch_idx == 14 and self.global_rank == 1
        return (self.weight * batch.values).square().mean() * (1e6 if spikes else 1.0)

    def on_after_backward(self) -> None:
        pass


class RollbackReport(Callback):
    """Writes the weights after each step, and what was rolled back."""

    def __init__(self, folder: Path, rollback: Rollback) -> None:
        self.folder, self.rollback, self.weights = folder, rollback, list[list[float]]()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.weights.append(pl_module.state_dict()["weight"].tolist())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        report = {"weights": self.weights, "rollbacks": self.rollback.rollbacks, "losses": list(self.rollback.losses)}
        (self.folder / f"rollback-{trainer.global_rank}.json").write_text(json.dumps(report))


def sharded_norm() -> float:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    parameter = nn.Parameter(distribute_tensor(torch.zeros(4), mesh, [Shard(0)]))
    parameter.grad = distribute_tensor(torch.tensor([1.0, 2.0, 2.0, 4.0]), mesh, [Shard(0)])
    clip = GradientClip(norm=1.0)
    before = clip._measure([[parameter]], torch.device("cpu"))
    nn.utils.clip_grads_with_norm_([parameter], 1.0, before.device_norms[0])
    return before.total * clip._measure([[parameter]], torch.device("cpu")).total


def largest_of_shards() -> list[float]:
    """Largest entries; the one of a single entry leaves the second process an empty shard."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    found: list[float] = []
    for last in (-7.0, math.nan):
        parameters = []
        for values in ([3.0], [1.0, 2.0, last]):
            gradient = distribute_tensor(torch.tensor(values), mesh, [Shard(0)])
            parameters.append(nn.Parameter(torch.zeros_like(gradient)))
            parameters[-1].grad = gradient
        norms = GradientClip(value=0.5, norm_type=math.inf)._measure([parameters], torch.device("cpu"))
        found += [norms.total, norms.peak, float(norms.finite)]
    return found


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    clip, throughput = GradientClip(norm=100.0, nonfinite="skip"), Throughput()
    batches = [Batch(torch.full((4,), 0.5 + step % 5), torch.tensor([2, 3])) for step in range(20)]
    fit(Poisoned(), batches[:5], clip, throughput, Report(folder, clip, throughput))
    rollback = Rollback(every=4, history=10, patience=1)
    fit(Spiking(), batches, rollback, RollbackReport(folder, rollback))


def fit(module: LightningModule, batches: list[Batch], *callbacks: Callback) -> None:
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))


if __name__ == "__main__":
    os.environ.setdefault("PL_TORCH_DISTRIBUTED_BACKEND", "gloo")
    main(Path(sys.argv[1]))
