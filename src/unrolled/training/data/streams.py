"""Loaders for truncated backpropagation: a batch is the next window of parallel streams of text.

The task carries each stream's state from window to window. A plan, computed identically by every process, decides which
tokens a window reads, which of its predictions count, where a new sequence begins, and the scale of a window's loss. So
Lightning's automatic optimization is used, with its accumulation, clipping, schedules and checkpoints.

Every token of the text is predicted exactly once in an epoch: N tokens are N predictions.

Williams and Peng 1990, "An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network Trajectories":
BPTT(h; h') with h = window and h' = stride.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unrolled.training.data.buckets import LoaderState
from unrolled.training.data.plans import StreamPlan
from unrolled.training.data.tokens import Tokens
from unrolled.wording import counted


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
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor
    loss_mask: Tensor
    reset: Tensor
    carry: int
    scale: float


class StreamLoader:
    """Iterates over one process's windows of a plan, epoch after epoch, in constant memory.

    The loader counts epochs itself: a new iteration continues where the previous one stopped. Lightning saves and
    restores its position with every checkpoint. When it resumes at the end of an epoch, it may read a batch of the next
    epoch in the old one, but no window is lost or read twice.

    Args:
        tokens: the text.
        plan: the tokens of each window; equal on every rank.
        start: id of the input before a document's first token.
        rank: rank of this process.
        ranks: number of processes; the plan's rows are distributed to them in order, and ranks without rows read empty
            windows.
        accumulate: number of batches whose gradients are accumulated for an optimizer step.
        restart: begin with the first epoch at each iteration, as for validation, which may end early.
        limit: the Trainer's `limit_train_batches`: number of windows of an epoch that are used (int), or their fraction
            (float). The epoch's last step may then accumulate fewer batches.

    Raises:
        ValueError: a plan for another text, a rank outside 0 … ranks − 1, or accumulate below 1.
    """

    def __init__(
        self,
        tokens: Tokens,
        plan: StreamPlan,
        *,
        start: int,
        rank: int = 0,
        ranks: int = 1,
        accumulate: int = 1,
        restart: bool = False,
        limit: int | float | None = None,
    ) -> None:
        if plan.size != len(tokens):
            raise ValueError(f"the plan is for {plan.size} tokens, the text has {len(tokens)}")
        _check_rank(rank, ranks)
        if accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {accumulate}")
        self.tokens, self.plan, self.start = tokens, plan, start
        self.rank, self.ranks, self.accumulate = rank, ranks, accumulate
        self.batch_size = -(-plan.rows // ranks)
        self.epoch = 0
        self._position = 0
        self._restart = restart
        self._group: tuple[int, int, int] = (-1, -1, 0)  # epoch, first index and predictions of the current step
        # As in Lightning: an int is a number of batches, a float a fraction of them.
        taken = limit if isinstance(limit, int) else len(self) if limit is None else int(len(self) * limit)
        self._taken = min(taken, len(self))

    def __len__(self) -> int:
        """Number of windows of an epoch, equal on every rank and in every epoch."""
        return self.plan.num_windows

    def __iter__(self) -> Iterator[Window]:
        # Evaluated with the first window, so that a position restored before then is used.
        if self._restart:
            self.epoch, self._position = 0, 0
        yield from self._windows(self.epoch, self._position)

    def state_dict(self) -> LoaderState:
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: LoaderState) -> None:
        """Restores a position: the next iteration continues after the last returned window.

        Raises:
            ValueError: the position is outside this plan.
        """
        if not 0 <= state["position"] <= len(self):
            raise ValueError(
                f"cannot resume after window {state['position']} of an epoch of {len(self)}: the text, the batch size, "
                "the window or the number of processes has changed; resume with the old ones, or start from the weights"
            )
        self.epoch, self._position = state["epoch"], state["position"]

    def _windows(self, epoch: int, position: int) -> Iterator[Window]:
        for index in range(position, self._taken):
            # Updated before the window is returned: a checkpoint saved during its step counts it as read, and Lightning
            # never requests a window after the last of a sized loader.
            last = index + 1 == self._taken
            self.epoch, self._position = (epoch + 1, 0) if last else (epoch, index + 1)
            yield self.window(epoch, index)

    def window(self, epoch: int, index: int) -> Window:
        """Returns the window with this index in this epoch."""
        spec = self.plan.window_spec(epoch, index)
        time = int(spec.lengths.max())  # over all ranks, so that every rank's batch has the same shape
        mine = range(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        rows = np.fromiter((row for row in mine if row < self.plan.rows), dtype=np.int64)
        missing = self.batch_size - len(rows)
        begins, lengths, skipped = (np.pad(field[rows], (0, missing)) for field in spec[:3])
        reset, opens = (np.pad(field[rows], (0, missing)) for field in spec[3:5])

        steps = np.arange(time)
        valid = steps < lengths[:, None]
        loss_mask = valid & (steps >= skipped[:, None])
        read = self._read(begins, time)
        inputs = torch.where(torch.as_tensor(opens)[:, None] & (torch.arange(time) == 0), self.start, read[:, :-1])
        padding = torch.as_tensor(~valid)
        return Window(
            inputs=inputs.masked_fill(padding, 0),
            targets=read[:, 1:].masked_fill(padding, 0),
            lengths=torch.as_tensor(lengths),
            loss_mask=torch.as_tensor(loss_mask),
            reset=torch.as_tensor(reset),
            carry=min(spec.carry, time),
            scale=self._scale(epoch, index),
        )

    def _read(self, begins: NDArray[np.int64], time: int) -> Tensor:
        """Returns (batch, time + 1) ids from the token before each row's first target; they are masked later."""
        positions = begins[:, None] + np.arange(-1, time)
        return self.tokens.gather(positions.clip(0, len(self.tokens) - 1))

    def _scale(self, epoch: int, index: int) -> float:
        first = index - index % self.accumulate
        if self._group[:2] != (epoch, first):
            stop = max(index + 1, min(first + self.accumulate, self._taken))
            predictions = sum(self.plan.window_spec(epoch, k).predictions for k in range(first, stop))
            self._group = (epoch, first, predictions)
        return self.accumulate * self.ranks / self._group[2]


class RandomWindows:
    """Iterates over windows at random positions, each with a zero initial state, a common evaluation protocol.

    All predictions count. A prediction's context is length / 2 tokens on average, so the loss is higher than that of a
    text read continuously. The positions are equal in every iteration, and for any batch size and number of processes.

    Args:
        tokens: the text; windows may cross its documents.
        length: number of predictions in a window.
        count: number of windows.
        batch_size: number of windows in a process's batch.
        seed: seed of the positions.
        rank: rank of this process.
        ranks: number of processes, to which the windows are distributed.

    Raises:
        ValueError: a text of at most `length` tokens, a number below one, or a rank outside 0 … ranks − 1.
    """

    def __init__(
        self, tokens: Tokens, *, length: int, count: int, batch_size: int, seed: int = 0, rank: int = 0, ranks: int = 1
    ) -> None:
        if min(length, count, batch_size) < 1:
            raise ValueError(f"length, count and batch_size must be at least 1, got {length}, {count} and {batch_size}")
        if len(tokens) <= length:
            raise ValueError(
                f"a window of {length} predictions needs {counted(length + 1, 'token')}, "
                f"the text has {len(tokens)}; lower length"
            )
        _check_rank(rank, ranks)
        self.tokens, self.length, self.batch_size, self.rank, self.ranks = tokens, length, batch_size, rank, ranks
        self._begins = np.random.default_rng(seed).integers(0, len(tokens) - length, size=count)

    def __len__(self) -> int:
        """Number of batches, equal on every rank."""
        return -(-len(self._begins) // (self.batch_size * self.ranks))

    def __iter__(self) -> Iterator[Window]:
        for index in range(len(self)):
            dealt = self._begins[index * self.batch_size * self.ranks :][: self.batch_size * self.ranks]
            mine = dealt[self.rank * self.batch_size :][: self.batch_size]
            yield self._window(mine, self.ranks / (len(dealt) * self.length))

    def _window(self, begins: NDArray[np.int64], scale: float) -> Window:
        missing = self.batch_size - len(begins)
        begins = np.pad(begins, (0, missing))
        valid = torch.arange(self.batch_size) < self.batch_size - missing
        read = self.tokens.gather(begins[:, None] + np.arange(self.length + 1)) * valid[:, None]
        return Window(
            inputs=read[:, :-1],
            targets=read[:, 1:],
            lengths=valid * self.length,
            loss_mask=valid[:, None].repeat(1, self.length),
            reset=valid,
            carry=self.length,
            scale=scale,
        )


def _check_rank(rank: int, ranks: int) -> None:
    if not 0 <= rank < ranks:
        raise ValueError(f"rank must be in 0 … ranks − 1, got rank {rank} of {ranks}")
