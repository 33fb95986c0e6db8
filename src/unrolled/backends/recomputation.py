"""Gradient checkpointing over time: long sequences with less memory, at the cost of a second forward pass.

T steps are divided into √T segments of √T steps, and only the states between segments are stored. The backward pass
runs each segment again, with the same noise, to recompute its intermediate values. Chen et al. 2016, "Training Deep
Nets with Sublinear Memory Cost", section 4; for recurrent networks, Gruslys et al. 2016, "Memory-Efficient
Backpropagation Through Time".
"""

from collections.abc import Callable
from math import isqrt
from typing import TypeVar

import torch
from torch import Tensor

S = TypeVar("S")
# (inputs, state, lengths) of some steps -> their outputs and the state after them.
Segment = Callable[[Tensor, S, Tensor | None], tuple[Tensor, S]]


def checkpoint_segments(
    run: Segment[S], inputs: Tensor, state: S, lengths: Tensor | None, *, reverse: bool
) -> tuple[Tensor, S]:
    """Run a layer segment by segment, and store only the states between segments.

    Args:
        run: runs the layer over some steps, in the direction given by `reverse`.
        inputs: (batch, time, input), with at least one step.
        state: the state before the first step.
        lengths: (batch,) int64 from 0 to time, or None.
        reverse: whether the layer runs backwards, starting with the last segment.

    Returns:
        The outputs (batch, time, output), and the state after each row's last step.
    """
    from torch.utils.checkpoint import checkpoint

    time = inputs.shape[1]
    steps = isqrt(time - 1) + 1  # √T, rounded up
    firsts = range(0, time, steps)
    outputs: dict[int, Tensor] = {}
    for first in reversed(firsts) if reverse else firsts:
        segment = inputs[:, first : first + steps]
        within = None if lengths is None else (lengths - first).clamp(0, segment.shape[1])
        outputs[first], state = checkpoint(run, segment, state, within, use_reentrant=False)  # pyright: ignore
    return torch.cat([outputs[first] for first in firsts], dim=1), state
