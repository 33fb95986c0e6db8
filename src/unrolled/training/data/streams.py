"""Batches of truncated backpropagation: the next window of parallel streams of tokens.

The task carries each stream's state from window to window. A plan, computed identically by every process, decides which
tokens a window reads, which of its predictions count, where a new sequence begins, and the scale of a window's loss. So
Lightning's automatic optimization is used, with its accumulation, clipping, schedules and checkpoints.

Every token of the text is predicted exactly once in an epoch: N tokens are N predictions.

Williams and Peng 1990, "An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network Trajectories":
BPTT(h; h') with h = window and h' = stride.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.training.data.plans import WindowSpec
from unrolled.training.data.tokens import Tokens


class Window(NamedTuple):
    """A batch of truncated backpropagation.

    Attributes:
        inputs: (batch, time) int64, inputs of the network; 0 in the padding.
        targets: (batch, time) int64; 0 in the padding.
        lengths: (batch,) int64, number of valid steps; 0 if a stream has ended.
        loss_mask: (batch, time) bool, predictions that count: all are valid, and none is counted by another window.
        reset: (batch,) bool, whether the row begins a new sequence, which resets its carried state.
        carry: number of steps after which the state is carried to the next window: all of them, unless the stride is
            shorter than the window. A row with fewer valid steps carries its last valid state.
        scale: factor of the summed loss (nats) before the backward pass. After Lightning's division by accumulated
            batches and the mean over ranks, the gradient is that of the mean over all predictions of the step.
        resets: (batch, time) bool, whether a new sequence begins at a step within the row; None if none does.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor
    loss_mask: Tensor
    reset: Tensor
    carry: int
    scale: float
    resets: Tensor | None = None


def token_window(tokens: Tokens, spec: WindowSpec, scale: float, *, start: int) -> Window:
    """Reads a window of tokens. The inputs are the targets one step before.

    Args:
        tokens: the text.
        spec: the tokens that each row reads.
        scale: factor of the summed loss.
        start: id of the input before a document's first token.

    Raises:
        ValueError: a plan for a longer text.
    """
    end = int((spec.begins + spec.lengths).max())
    if end > len(tokens):
        raise ValueError(f"the plan reads {end} tokens, the text has {len(tokens)}")
    steps = np.arange(spec.time)
    valid = steps < spec.lengths[:, None]
    positions = spec.begins[:, None] + np.arange(-1, spec.time)  # from the token before each row's first target
    read = tokens.gather(positions.clip(0, len(tokens) - 1))
    padding = torch.as_tensor(~valid)
    return Window(
        inputs=torch.where(torch.as_tensor(spec.opens), start, read[:, :-1]).masked_fill(padding, 0),
        targets=read[:, 1:].masked_fill(padding, 0),
        lengths=torch.as_tensor(spec.lengths),
        loss_mask=torch.as_tensor(valid & (steps >= spec.skipped[:, None])),
        reset=torch.as_tensor(spec.reset),
        carry=min(spec.carry, spec.time),
        scale=scale,
        resets=None if spec.resets is None else torch.as_tensor(spec.resets),
    )
