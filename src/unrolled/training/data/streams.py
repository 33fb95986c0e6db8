"""Batches of truncated backpropagation: the next window of parallel streams of tokens or frames.

The task carries each stream's state from window to window. A plan, computed identically by every process, decides which
tokens a window reads, which of its predictions count, where a new sequence begins, and the scale of a window's loss. So
Lightning's automatic optimization is used, with its accumulation, clipping, schedules and checkpoints.

Every token of the text is predicted exactly once in an epoch: N tokens are N predictions.

Williams and Peng 1990, "An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network Trajectories":
BPTT(h; h') with h = window and h' = stride.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from unrolled.training.data.plans import Ints, WindowSpec


class Window(NamedTuple):
    """A batch of truncated backpropagation.

    Attributes:
        inputs: (batch, time) int64, or (batch, time, features) frames, inputs of the network; 0 in the padding.
        targets: (batch, time) int64 or, for frames, (batch, time) or (batch, time, outputs); 0 in the padding.
        lengths: (batch,) int64, number of valid steps; 0 if a stream has ended.
        loss_mask: (batch, time) bool, predictions that count: all are valid, and none is counted by another window.
        reset: (batch,) bool, whether the row begins a new sequence, which resets its carried state.
        carry: number of steps after which the state is carried to the next window: all of them, unless the stride is
            shorter than the window. A row with fewer valid steps carries its last valid state. 0 for whole sequences,
            which begin with the initial state, and no window continues them.
        scale: factor of the summed loss (nats) before the backward pass. After Lightning's division by accumulated
            batches and the mean over ranks, the gradient is that of the mean over all predictions of the step.
        resets: (batch, time) bool, whether a new sequence begins at a step within the row; None if none does.
        examples: (batch,) int64, numbers of whole sequences within their split; None for windows of streams.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor
    loss_mask: Tensor
    reset: Tensor
    carry: int
    scale: float
    resets: Tensor | None = None
    examples: Tensor | None = None


class Readable(Protocol):
    """Documents end to end, of which steps are read by their positions: a text, or frames that predict the next."""

    def __len__(self) -> int: ...

    def gather(self, positions: Ints) -> Tensor:
        """Returns the steps at these positions: tokens in their shape, or frames (…, features)."""
        ...


def token_window(tokens: Readable, spec: WindowSpec, scale: float, *, start: float) -> Window:
    """Reads a window of tokens, or of frames. The inputs are the targets one step before.

    Args:
        tokens: the text, or the frames.
        spec: the tokens that each row reads.
        scale: factor of the summed loss.
        start: the input before a document's first token: its id, or the value of all features.

    Raises:
        ValueError: a plan for a longer text.
    """
    _check_end(spec, len(tokens), "tokens")
    positions = spec.begins[:, None] + np.arange(-1, spec.time)  # from the token before each row's first target
    read = tokens.gather(positions.clip(0, len(tokens) - 1))
    opens = _broadcast(torch.as_tensor(spec.opens), read)
    return _window(read[:, :-1].masked_fill(opens, start), read[:, 1:], spec, scale)


class Frames:
    """Frames of documents end to end, such as recordings or series, with the target of each step.

    Args:
        inputs: (steps, features) the frames of all documents; a memory-mapped tensor is read as needed.
        targets: (steps,) or (steps, outputs) the target of each frame.
        lengths: (documents,) number of frames of each document.

    Raises:
        ValueError: the numbers of frames, targets and lengths differ.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, lengths: ArrayLike) -> None:
        self.inputs, self.targets, self.lengths = inputs, targets, np.asarray(lengths, dtype=np.int64)
        if not len(inputs) == len(targets) == int(self.lengths.sum()):
            raise ValueError(
                f"{len(inputs)} frames and {len(targets)} targets of documents with {int(self.lengths.sum())} frames: "
                "the numbers must be equal"
            )

    def __len__(self) -> int:
        return len(self.inputs)


def frame_window(frames: Frames, spec: WindowSpec, scale: float) -> Window:
    """Reads a window of frames. The target of a step is that of its own frame.

    Args:
        frames: the frames.
        spec: the frames that each row reads.
        scale: factor of the summed loss.

    Raises:
        ValueError: a plan for more frames.
    """
    _check_end(spec, len(frames), "frames")
    positions = torch.as_tensor((spec.begins[:, None] + np.arange(spec.time)).clip(0, len(frames) - 1))
    return _window(frames.inputs[positions], frames.targets[positions], spec, scale)


def _window(inputs: Tensor, targets: Tensor, spec: WindowSpec, scale: float) -> Window:
    """Sets the padding to zero, and adds the plan's masks, marks and lengths."""
    steps = np.arange(spec.time)
    valid = steps < spec.lengths[:, None]
    padding = torch.as_tensor(~valid)
    return Window(
        inputs=inputs.masked_fill(_broadcast(padding, inputs), 0),
        targets=targets.masked_fill(_broadcast(padding, targets), 0),
        lengths=torch.as_tensor(spec.lengths),
        loss_mask=torch.as_tensor(valid & (steps >= spec.skipped[:, None])),
        reset=torch.as_tensor(spec.reset),
        carry=min(spec.carry, spec.time),
        scale=scale,
        resets=None if spec.resets is None else torch.as_tensor(spec.resets),
    )


def _broadcast(mask: Tensor, values: Tensor) -> Tensor:
    return mask.view(*mask.shape, *[1] * (values.ndim - 2))


def _check_end(spec: WindowSpec, size: int, unit: str) -> None:
    end = int((spec.begins + spec.lengths).max())
    if end > size:
        raise ValueError(f"the plan reads {end} {unit}, there are {size}")
