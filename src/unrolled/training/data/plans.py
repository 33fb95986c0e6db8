"""Plans of truncated backpropagation: the tokens of every window of an epoch, equal on every process."""

import math
import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unrolled.wording import counted

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class WindowSpec(NamedTuple):
    """The tokens that one window reads, for all rows of the plan.

    Attributes:
        begins: (rows,) position of the first target in the text.
        lengths: (rows,) number of targets; 0 if the row has ended.
        skipped: (rows,) number of first targets that an earlier window has predicted.
        reset: (rows,) whether the row begins a new sequence.
        opens: (rows, time) whether a target is the first token of its document, without a token before it.
        carry: number of steps after which the state is carried to the next window; sys.maxsize for all steps.
        time: number of steps of the longest row of all processes, so that their batches have equal shapes.
        resets: (rows, time) whether a step begins a new sequence, beyond `reset`; None if none does.
        epoch: number of the epoch, on which an augmentation may depend.
    """

    begins: Ints
    lengths: Ints
    skipped: Ints
    reset: Bools
    opens: Bools
    carry: int
    time: int
    resets: Bools | None = None
    epoch: int = 0

    @property
    def predictions(self) -> int:
        """Number of predictions that count, over all rows."""
        return int((self.lengths - self.skipped).sum())

    def of_rank(self, rank: int, ranks: int) -> "WindowSpec":
        """Returns a process's rows, an equal number for each process; rows that are missing at the end are empty."""
        count = -(-len(self.begins) // ranks)
        begin, end = rank * count, (rank + 1) * count

        def mine(field: NDArray[Any]) -> NDArray[Any]:
            missing = count - len(field[begin:end])
            return np.pad(field[begin:end], [(0, missing), *[(0, 0)] * (field.ndim - 1)])

        return self._replace(
            begins=mine(self.begins),
            lengths=mine(self.lengths),
            skipped=mine(self.skipped),
            reset=mine(self.reset),
            opens=mine(self.opens),
            resets=None if self.resets is None else mine(self.resets),
        )


class StreamPlan:
    """Divides a text into parallel rows, which are read window after window.

    With `concatenate`, the whole text is one sequence, divided into rows of equal length (up to one token). Otherwise
    each document is a sequence, and a row holds whole documents one after another: rows are as equal as that allows. A
    window goes on with the next document where one ends, with a mark at its first token.

    All rows share the borders of their windows, and all epochs have the same number of windows, since a Trainer reads
    it once. Therefore randomly drawn lengths are scaled to fill the longest row, and a random shift is drawn from those
    with the more frequent number of windows.

    Args:
        lengths: (documents,) number of tokens of each document; empty documents are skipped.
        rows: number of parallel sequences: batch size × processes.
        ranks: number of processes, to which the rows are distributed in order; those without rows read empty windows.
        window: number of steps of backpropagation (h), and the usual length of a window.
        stride: number of new predictions in a window (h'); None for all of them. With a stride below `window`, a window
            begins `stride` steps after the previous one, and only new predictions count.
        concatenate: concatenate all documents to one text.
        random_length: draw lengths around `window`, one in twenty around half of it (Merity et al. 2018, "Regularizing
            and Optimizing LSTM Language Models", section 4.1).
        shift: give an epoch's first window a random number of new predictions, up to stride, so that the boundaries of
            windows differ between epochs.
        seed: seed of all random numbers, together with the epoch.

    Raises:
        ValueError: a number below one, a stride above the window, or random_length with a stride or a shift.
    """

    def __init__(
        self,
        lengths: ArrayLike,
        *,
        rows: int,
        window: int,
        ranks: int = 1,
        stride: int | None = None,
        concatenate: bool = True,
        random_length: bool = False,
        shift: bool = False,
        seed: int = 0,
    ) -> None:
        stride = window if stride is None else stride
        if min(rows, ranks, window, stride) < 1:
            raise ValueError(
                f"rows, ranks, window and stride must be at least 1, got {rows}, {ranks}, {window} and {stride}"
            )
        if stride > window:
            raise ValueError(
                f"a stride of {stride} would skip tokens between windows of {window}: stride must be at most window"
            )
        if random_length and (shift or stride != window):
            raise ValueError(
                "random_length already varies the boundaries of windows: remove shift, and remove stride or set it to "
                "window"
            )
        self.rows, self.window, self.stride, self.concatenate = rows, window, stride, concatenate
        self.ranks, self.random_length, self.seed = ranks, random_length, seed
        documents = np.asarray(lengths, dtype=np.int64).reshape(-1)
        self.size = int(documents.sum())
        starts = (np.cumsum(documents) - documents)[documents > 0]
        borders = np.arange(rows + 1) * self.size // rows if concatenate else _row_borders(starts, self.size, rows)
        self._begins, self._lengths = borders[:-1], np.diff(borders)
        self._longest = int(self._lengths.max())
        self._starts = starts[:1] if concatenate else starts  # of sequences, in the text
        self._shifts = self._shift_range() if shift else (stride, stride)
        self.num_batches = self._num_windows(self._shifts[0])
        self._drawn: tuple[int, Ints] = (-1, np.zeros(0, dtype=np.int64))  # the last epoch and its random borders

    def predictions(self, epoch: int, index: int) -> int:
        """Returns the number of predictions of a window that count, over all processes."""
        return self.window_spec(epoch, index).predictions

    def item(self, epoch: int, index: int, rank: int) -> WindowSpec:
        """Returns the tokens of a process's rows of a window."""
        return self.window_spec(epoch, index).of_rank(rank, self.ranks)

    def window_spec(self, epoch: int, index: int) -> WindowSpec:
        """Returns the tokens of a window, for all rows.

        Args:
            epoch: number of the epoch.
            index: number of the window in the epoch.

        Raises:
            IndexError: an index outside 0 … num_batches − 1.
        """
        if not 0 <= index < self.num_batches:
            raise IndexError(f"window {index} of an epoch of {self.num_batches}")
        shift = int(np.random.default_rng((self.seed, epoch)).integers(*self._shifts, endpoint=True))
        begin, end = self._random(epoch, index) if self.random_length else self._regular(shift, index)
        known = 0 if index == 0 else self.window - self.stride  # first targets that an earlier window has predicted
        running = self._lengths > begin + known
        lengths = np.where(running, np.minimum(end, self._lengths) - begin, 0)
        begins = np.where(running, self._begins + begin, 0)
        time = int(lengths.max())
        positions = begins[:, None] + np.arange(time)
        starting = np.isin(positions, self._starts) & (np.arange(time) < lengths[:, None])
        marks = starting.copy()
        marks[:, :1] &= index > 0  # the others are those of `reset`
        return WindowSpec(
            begins=begins,
            lengths=lengths,
            skipped=np.where(running, known, 0),
            reset=running & (index == 0),
            opens=starting,
            carry=sys.maxsize if self.stride == self.window else shift if index == 0 else self.stride,
            time=time,
            resets=marks if marks.any() else None,
            epoch=epoch,
        )

    def _num_windows(self, shift: int) -> int:
        """Returns the number of windows of the longest row."""
        if not self._longest:
            return 0
        if self.random_length:
            return _random_windows(self._longest, self.window)
        ahead = shift + self.window - self.stride
        return 1 + -(-max(self._longest - ahead, 0) // self.stride)

    def _shift_range(self) -> tuple[int, int]:
        """Returns the first and last of the longest range of shifts with equal numbers of windows.

        A shift below `stride` leaves more tokens to the last window. If it is too short for them, one more window is
        needed. The longest row decides.
        """
        if not self._longest:
            return self.stride, self.stride
        left = self._longest - (self.window - self.stride)
        enough = max(1, left - (max(-(-left // self.stride), 1) - 1) * self.stride)
        return (enough, self.stride) if self.stride - enough + 1 >= enough - 1 else (1, enough - 1)

    def _regular(self, shift: int, index: int) -> tuple[int, int]:
        """Returns where a window begins and ends within the rows, without limiting its end to their lengths."""
        begin = 0 if index == 0 else shift + (index - 1) * self.stride
        return begin, shift + index * self.stride + self.window - self.stride

    def _random(self, epoch: int, index: int) -> tuple[int, int]:
        """Like `_regular`, with random borders."""
        if self._drawn[0] != epoch:
            generator = np.random.default_rng((self.seed, epoch, 0))
            self._drawn = epoch, _random_borders(self._longest, self.window, generator)
        return int(self._drawn[1][index]), int(self._drawn[1][index + 1])


class RandomWindowPlan:
    """Windows at random positions, each with a zero initial state, a common evaluation protocol.

    All predictions count. A prediction's context is length / 2 tokens on average, so the loss is higher than that of a
    text read continuously. The positions are equal in every epoch, and for any batch size and number of processes.

    Args:
        size: number of tokens of the text; windows may cross its documents.
        length: number of predictions in a window.
        count: number of windows.
        batch_size: number of windows in a process's batch.
        ranks: number of processes, to which the windows are distributed.
        seed: seed of the positions.

    Raises:
        ValueError: a text of at most `length` tokens, or a number below one.
    """

    def __init__(self, size: int, *, length: int, count: int, batch_size: int, ranks: int = 1, seed: int = 0) -> None:
        if min(length, count, batch_size, ranks) < 1:
            raise ValueError(
                f"length, count, batch_size and ranks must be at least 1, got {length}, {count}, {batch_size} and "
                f"{ranks}"
            )
        if size <= length:
            raise ValueError(
                f"a window of {length} predictions needs {counted(length + 1, 'token')}, the text has {size}; "
                "lower length"
            )
        self.length, self.batch_size, self.ranks = length, batch_size, ranks
        self._begins = np.random.default_rng(seed).integers(0, size - length, size=count)
        self.num_batches = -(-count // (batch_size * ranks))

    def predictions(self, epoch: int, index: int) -> int:
        """Returns the number of predictions of a batch, over all processes."""
        return len(self._batch(index)) * self.length

    def item(self, epoch: int, index: int, rank: int) -> WindowSpec:
        """Returns a process's windows of a batch; rows after the last window are empty."""
        begins = self._batch(index)
        there = np.arange(self.batch_size * self.ranks) < len(begins)
        return WindowSpec(
            begins=np.pad(begins, (0, len(there) - len(begins))) + 1,  # the token before is the first input
            lengths=there * self.length,
            skipped=np.zeros_like(there, dtype=np.int64),
            reset=there,
            opens=np.zeros((len(there), self.length), dtype=np.bool_),
            carry=self.length,
            time=self.length,
        ).of_rank(rank, self.ranks)

    def _batch(self, index: int) -> Ints:
        count = self.batch_size * self.ranks
        return self._begins[index * count : (index + 1) * count]


def _row_borders(starts: Ints, size: int, rows: int) -> Ints:
    """Returns (rows + 1,) borders between rows of whole documents, so that the longest row is as short as possible.

    Args:
        starts: (documents,) first token of each document, in ascending order.
        size: number of tokens.
        rows: number of rows; the last ones are empty if there are fewer documents.
    """
    ends = np.append(starts[1:], size) if len(starts) else starts

    def filled(capacity: int) -> list[int]:
        """The borders of rows with as many documents as fit, at most one more than there may be."""
        borders = [0]
        while borders[-1] < size and len(borders) <= rows + 1:
            last = int(np.searchsorted(ends, borders[-1] + capacity, side="right")) - 1
            borders.append(int(ends[last]))
        return borders

    low, high = int((ends - starts).max(initial=0)), size
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(filled(middle)) <= rows + 1 else (middle + 1, high)
    borders = filled(low) if size else [0]
    return np.asarray([*borders, *[size] * (rows + 1 - len(borders))], dtype=np.int64)


# Merity et al. 2018, section 4.1, and the authors' code: the base length is halved with probability 0.05, a length is
# drawn from N(base, 5) and never shorter than 5.
_HALVED, _SPREAD, _SHORTEST = 0.05, 5.0, 5


def _random_windows(length: int, window: int) -> int:
    """Returns the number of windows of a row, from the mean of the drawn lengths: equal for every draw."""
    return math.ceil(length / max(1.0, window * (1 - _HALVED / 2)))


def _random_borders(length: int, window: int, generator: np.random.Generator) -> Ints:
    """Returns (windows + 1,) boundaries from 0 to length: drawn lengths, scaled to the sequence, at least one token."""
    count = _random_windows(length, window)
    base = np.where(generator.random(count) < _HALVED, window / 2, window)
    drawn = np.maximum(generator.normal(base, _SPREAD), min(_SHORTEST, window))
    share = np.concatenate([[0.0], np.cumsum(drawn)]) / drawn.sum()
    borders = np.arange(count + 1) + np.floor(share * (length - count)).astype(np.int64)
    borders[-1] = length  # the sum of shares may differ from one by rounding
    return borders
