"""Truncated backpropagation as data: a batch is the next window of many streams of text read side by side.

The task carries each stream's state from window to window; which tokens a window reads, which of its predictions count,
where a stream begins anew and how much a window's loss weighs is decided here, by a plan that every process computes
alike. So optimization stays Lightning's own, and accumulation, clipping, schedules and checkpoints keep their meaning.

Every token of the text is predicted exactly once in an epoch: N tokens are N predictions.

Williams and Peng 1990, "An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network Trajectories":
BPTT(h; h') with h = window and h' = stride.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unrolled.training.data.plans import StreamPlan
from unrolled.training.data.tokens import Tokens
from unrolled.wording import counted


class Window(NamedTuple):
    """A batch of truncated backpropagation.

    Attributes:
        inputs: (batch, time) int64, what the network reads; 0 in the padding.
        targets: (batch, time) int64, what it shall predict; 0 in the padding.
        lengths: (batch,) int64 valid steps; 0 where a stream has nothing left.
        loss_mask: (batch, time) bool, predictions that count; all of them valid, none counted by another window.
        reset: (batch,) bool, the row begins a new sequence: its carried state is dropped.
        carry: steps after which the state goes on to the next window. All of them, but for a stride shorter than the
            window; a row with fewer valid steps carries its last valid state.
        scale: what the summed loss (nats) is multiplied with before backward, so that after Lightning's division by
            accumulated batches and the mean over ranks the gradient is that of the mean over all predictions of the
            step.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor
    loss_mask: Tensor
    reset: Tensor
    carry: int
    scale: float


class Position(TypedDict):
    """Where a loader stands: windows given out in this epoch, plain numbers for a checkpoint."""

    epoch: int
    position: int


class StreamLoader:
    """One process's windows of a plan, epoch after epoch; sized, resumable, of constant memory.

    It counts its epochs itself: a new iteration goes on where the one before stopped. Lightning saves and restores its
    position with every checkpoint; resuming at an epoch's end, it may take a batch of the next epoch into the old one,
    and no window is lost or read twice by that.

    Args:
        tokens: the text.
        plan: which window reads what; the same on every rank.
        start: id that is read before a document's first token.
        rank: this process.
        ranks: number of processes, among which the plan's rows are dealt in order; ranks that get none read empty
            windows.
        accumulate: batches whose gradients are added up for one step of the optimizer.
        restart: every iteration reads the first epoch from its beginning: for validation, which is left early at times.
        limit: the Trainer's `limit_train_batches`: windows of an epoch (int) or their share (float) that are taken,
            since the epoch's last step may then be shorter.

    Raises:
        ValueError: a plan for another text, a rank outside 0 … ranks − 1, or nothing to accumulate.
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
            raise ValueError(f"the plan is made for {plan.size} tokens, the text has {len(tokens)}")
        _check_rank(rank, ranks)
        if accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {accumulate}")
        self.tokens, self.plan, self.start = tokens, plan, start
        self.rank, self.ranks, self.accumulate = rank, ranks, accumulate
        self.batch_size = -(-plan.rows // ranks)
        self.epoch = 0
        self._position = 0
        self._restart = restart
        self._group: tuple[int, int, int] = (-1, -1, 0)  # epoch and index of the last step looked at, its predictions
        # As Lightning counts: an int is a number of batches, a float a share of them.
        taken = limit if isinstance(limit, int) else len(self) if limit is None else int(len(self) * limit)
        self._taken = min(taken, len(self))

    def __len__(self) -> int:
        """Windows of an epoch: the same on every rank and in every epoch."""
        return self.plan.num_windows

    def __iter__(self) -> Iterator[Window]:
        # Looked up when the first window is asked for: a place that is restored until then counts.
        if self._restart:
            self.epoch, self._position = 0, 0
        yield from self._windows(self.epoch, self._position)

    def state_dict(self) -> Position:
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: Position) -> None:
        """The next iteration goes on with the window after the last one given out.

        Raises:
            ValueError: a position that this plan does not have.
        """
        if not 0 <= state["position"] <= len(self):
            raise ValueError(
                f"cannot go on after window {state['position']} of an epoch of {len(self)}: the text, the batch size, "
                "the window or the number of processes has changed; resume with the old ones, or start from the weights"
            )
        self.epoch, self._position = state["epoch"], state["position"]

    def _windows(self, epoch: int, position: int) -> Iterator[Window]:
        for index in range(position, self._taken):
            # The position is moved before the window is given out: whoever saves while working on it has seen it, and a
            # sized loader is never asked for the window after the last.
            last = index + 1 == self._taken
            self.epoch, self._position = (epoch + 1, 0) if last else (epoch, index + 1)
            yield self.window(epoch, index)

    def window(self, epoch: int, index: int) -> Window:
        """The window with this index in this epoch."""
        spans = self.plan.spans(epoch, index)
        time = int(spans.lengths.max())  # over all ranks: then every rank's batch has the same shape
        mine = range(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        rows = np.fromiter((row for row in mine if row < self.plan.rows), dtype=np.int64)
        missing = self.batch_size - len(rows)
        begins, lengths, skipped = (np.pad(field[rows], (0, missing)) for field in spans[:3])
        reset, opens = (np.pad(field[rows], (0, missing)) for field in spans[3:5])

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
            carry=min(spans.carry, time),
            scale=self._scale(epoch, index),
        )

    def _read(self, begins: NDArray[np.int64], time: int) -> Tensor:
        """(batch, time + 1): from the token before each row's first target on; the caller masks what no row has."""
        positions = begins[:, None] + np.arange(-1, time)
        return self.tokens.gather(positions.clip(0, len(self.tokens) - 1))

    def _scale(self, epoch: int, index: int) -> float:
        first = index - index % self.accumulate
        if self._group[:2] != (epoch, first):
            stop = max(index + 1, min(first + self.accumulate, self._taken))
            predictions = sum(self.plan.spans(epoch, k).predictions for k in range(first, stop))
            self._group = (epoch, first, predictions)
        return self.accumulate * self.ranks / self._group[2]


class RandomWindows:
    """Windows at random places, each read from a zero state, all predictions counted: how others often report.

    The context of a prediction is length / 2 tokens on average, so the loss is higher than that of a text read
    continuously. The places are the same in every iteration, and for any batch size and number of processes.

    Args:
        tokens: the text; windows take no notice of its documents.
        length: predictions in a window.
        count: number of windows.
        batch_size: windows that a process reads at a time.
        seed: decides the places.
        rank: this process.
        ranks: number of processes, among which the windows are dealt.

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
        """Batches: the same on every rank."""
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
        raise ValueError(f"rank must lie in 0 … ranks − 1, got rank {rank} of {ranks}")
