"""Collective communication of Python objects."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def gather_from_all_ranks(items: Sequence[T]) -> list[T]:
    """Returns the items of all processes, in order of rank, on every process."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(items)
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, list(items))
    return [item for of_rank in gathered for item in of_rank]
