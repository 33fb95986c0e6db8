"""What single processes found, together."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def of_all_processes(items: Sequence[T]) -> list[T]:
    """The items of all processes, in the order of the processes; every process gets all of them."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(items)
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, list(items))
    return [item for of_one in gathered for item in of_one]
