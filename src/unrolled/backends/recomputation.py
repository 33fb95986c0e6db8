"""Long sequences in little memory: what a layer keeps for its backward pass is computed again, some steps at a time.

Of T steps only the states between √T stretches of √T steps are kept. On the way back each stretch is run once more,
with the same noise, and forgotten again. It costs a second forward pass. Chen et al. 2016, "Training Deep Nets with
Sublinear Memory Cost", section 4; for recurrent networks, Gruslys et al. 2016, "Memory-Efficient Backpropagation
Through Time".
"""

from collections.abc import Callable
from math import isqrt
from typing import TypeVar

import torch
from torch import Tensor

S = TypeVar("S")
# (inputs, state, lengths) of some steps -> their outputs and the state behind them.
Stretch = Callable[[Tensor, S, Tensor | None], tuple[Tensor, S]]


def checkpoint_segments(
    run: Stretch[S], inputs: Tensor, state: S, lengths: Tensor | None, *, reverse: bool
) -> tuple[Tensor, S]:
    """Run a layer stretch by stretch, so that only the states between them are kept.

    Args:
        run: runs the layer over some steps, in the direction that `reverse` tells.
        inputs: (batch, time, input), with at least one step.
        state: before the first step.
        lengths: (batch,) int64 from 0 to time, or None.
        reverse: the layer reads from the end, so the last stretch comes first.

    Returns:
        The outputs (batch, time, output), and the state behind each row's last step.
    """
    from torch.utils.checkpoint import checkpoint

    time = inputs.shape[1]
    steps = isqrt(time - 1) + 1  # √T, rounded up
    firsts = range(0, time, steps)
    outputs: dict[int, Tensor] = {}
    for first in reversed(firsts) if reverse else firsts:
        stretch = inputs[:, first : first + steps]
        within = None if lengths is None else (lengths - first).clamp(0, stretch.shape[1])
        outputs[first], state = checkpoint(run, stretch, state, within, use_reentrant=False)  # pyright: ignore
    return torch.cat([outputs[first] for first in firsts], dim=1), state
