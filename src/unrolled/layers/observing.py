"""What a network tells the recorder of its cells: that they are stepped through sequences, or that it can't be."""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells.base import Cell
from unrolled.cells.observer import Observer
from unrolled.sequences import mask_from_lengths


def observers(network: nn.Module) -> list[Observer]:
    """Return the observers of a network's cells; an empty list if it isn't recorded."""
    if torch.compiler.is_compiling():  # a recorder refuses compiled networks
        return []
    found = (module.observer for module in network.modules() if isinstance(module, Cell))
    return [observer for observer in found if observer is not None]


def observed_steps(network: nn.Module, inputs: Tensor, lengths: Tensor | None) -> AbstractContextManager[Any]:
    """Return a context within which the cells of a network are stepped through sequences, one call for each step.

    Args:
        network: the network.
        inputs: (batch, time, …), for the shape and the device.
        lengths: (batch,) numbers of valid steps; None without padding.
    """
    found = observers(network)
    if not found:
        return nullcontext()
    batch, time = inputs.shape[:2]
    places = torch.arange(1, batch * time + 1, device=inputs.device).view(batch, time)
    if lengths is not None:
        places = places * mask_from_lengths(lengths.to(inputs.device), time)
    stack = ExitStack()
    for observer in found:
        stack.enter_context(observer.steps(places))
    return stack


def refuse_recording(network: nn.Module) -> None:
    """Refuse to generate with a recorded network: its rows are reordered and removed between steps.

    Raises:
        ValueError: the network is recorded.
    """
    if observers(network):
        raise ValueError(
            "a recorded decoder can't run sample, greedy, beam_search or scheduled_sampling, which reorder and remove "
            "rows between steps; generate before record(…), and record a pass over what was generated"
        )
