"""What processes have in common: collective communication of objects and numbers, and shards of tensors."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

T = TypeVar("T")


def gather_from_all_ranks(items: Sequence[T]) -> list[T]:
    """Returns the items of all processes, in order of rank, on every process."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(items)
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, list(items))
    return [item for of_rank in gathered for item in of_rank]


def local_shard(tensor: Tensor) -> Tensor:
    """Returns this process's part of a sharded tensor; any other tensor unchanged. Not a collective operation."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gather_on_first(item: T) -> list[T]:
    """Returns the item of each process, in order of rank, on rank 0; an empty list on the others."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return [item]
    first = distributed.get_rank() == 0
    gathered: list[Any] = [None] * distributed.get_world_size() if first else []
    distributed.gather_object(item, gathered if first else None)
    return gathered


def max_over_ranks(trainer: Trainer, *numbers: int) -> list[int]:
    """Returns the maximum of each number over all processes. Every process must call it."""
    if trainer.world_size == 1:
        return list(numbers)
    held = torch.tensor(numbers, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(held, op=torch.distributed.ReduceOp.MAX)
    return held.tolist()
