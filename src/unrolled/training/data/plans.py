"""Plans of truncated backpropagation: the tokens of every window of an epoch, equal on every process."""

import heapq
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
        opens: (rows,) whether the first target is the first token of its document, without a token before it.
        carry: number of steps after which the state is carried to the next window; sys.maxsize for all steps.
        time: number of steps of the longest row of all processes, so that their batches have equal shapes.
    """

    begins: Ints
    lengths: Ints
    skipped: Ints
    reset: Bools
    opens: Bools
    carry: int
    time: int

    @property
    def predictions(self) -> int:
        """Number of predictions that count, over all rows."""
        return int((self.lengths - self.skipped).sum())

    def of_rank(self, rank: int, ranks: int) -> "WindowSpec":
        """Returns a process's rows, an equal number for each process; rows that are missing at the end are empty."""
        count = -(-len(self.begins) // ranks)
        begin, end = rank * count, (rank + 1) * count

        def mine(field: NDArray[Any]) -> NDArray[Any]:
            return np.pad(field[begin:end], (0, count - len(field[begin:end])))

        return self._replace(
            begins=mine(self.begins),
            lengths=mine(self.lengths),
            skipped=mine(self.skipped),
            reset=mine(self.reset),
            opens=mine(self.opens),
        )


class StreamPlan:
    """Divides a text into parallel rows, which are read window after window.

    With `concatenate`, the whole text is one sequence, divided into rows of equal length (up to one token). Otherwise
    each document is a sequence: whole documents are assigned to rows, the longest first, each to the row with the
    fewest tokens, and read in the order of the text. A window never crosses the end of a document and is shorter there.

    All epochs have the same number of windows, since a Trainer reads it once. Therefore randomly drawn lengths are
    scaled to fill the sequence, and a random shift is drawn from those with the more frequent number of windows.

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
        if concatenate:
            borders = np.arange(rows + 1) * self.size // rows
            self._set_sequences(np.arange(rows), borders[:-1], np.diff(borders), borders[:-1] == 0)
        else:
            borders = np.cumsum(documents) - documents
            self._set_sequences(
                _assign_rows(documents, rows), borders, documents, np.ones(len(documents), dtype=np.bool_)
            )
        self._before = self._windows_before(stride)
        self._shifts = self._shift_range() if shift else (stride, stride)
        self.num_batches = int(self._windows_of_rows(self._windows_before(self._shifts[0])).max())
        self._shift = stride  # the shift of _before
        self._borders_of_row: dict[int, tuple[int, int, Ints]] = {}  # epoch, sequence and its random boundaries

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
        if shift != self._shift:
            self._before, self._shift = self._windows_before(shift), shift

        number = self._before[self._row_starts[:-1]] + index  # of the window among those of all rows
        running = number < self._before[self._row_starts[1:]]
        number = np.where(running, number, 0)
        sequence = np.searchsorted(self._before, number, side="right") - 1
        turn = number - self._before[sequence]  # of the window among those of its sequence
        begins, ends = (
            self._random(epoch, sequence, turn) if self.random_length else self._regular(shift, sequence, turn)
        )
        ends = np.minimum(ends, self._lengths[sequence])
        first = turn == 0
        lengths = np.where(running, np.maximum(ends - begins, 0), 0)
        return WindowSpec(
            begins=self._begins[sequence] + begins,
            lengths=lengths,
            skipped=np.where(running & ~first, self.window - self.stride, 0),
            reset=running & first,
            opens=running & first & self._opens[sequence],
            carry=sys.maxsize if self.stride == self.window else shift if index == 0 else self.stride,
            time=int(lengths.max()),
        )

    def _set_sequences(self, row_of: Ints, begins: Ints, lengths: Ints, opens: Bools) -> None:
        """Stores the nonempty sequences row by row, within a row in the order of the text."""
        order = np.argsort(row_of, kind="stable")
        order = order[lengths[order] > 0]
        self._begins, self._lengths, self._opens = begins[order], lengths[order], opens[order]
        self._row_starts = np.searchsorted(row_of[order], np.arange(self.rows + 1))
        self._leads = np.zeros(len(order), dtype=np.bool_)  # the first sequence of its row
        self._leads[self._row_starts[:-1][np.diff(self._row_starts) > 0]] = True

    def _windows_before(self, shift: int) -> Ints:
        """Returns (sequences + 1,) cumulative numbers of windows before each sequence, row after row."""
        if self.random_length:
            # Rows of a concatenated text share their boundaries, so that one with a token less has as many windows.
            lengths = np.full_like(self._lengths, self._lengths.max(initial=0)) if self.concatenate else self._lengths
            counts = _random_windows(lengths, self.window)
        else:
            ahead = np.where(self._leads, shift, self.stride) + self.window - self.stride
            counts = 1 + -(-np.maximum(self._lengths - ahead, 0) // self.stride)
        return np.concatenate([[0], np.cumsum(counts)])

    def _windows_of_rows(self, before: Ints) -> Ints:
        return np.diff(before[self._row_starts])

    def _shift_range(self) -> tuple[int, int]:
        """Returns the first and last of the longest range of shifts with equal numbers of windows.

        A shift below `stride` leaves more tokens to the last window of a row's first sequence. If it is too short for
        them, one more window is needed. The longest rows decide.
        """
        windows = self._windows_of_rows(self._before)
        longest = self._row_starts[:-1][windows == windows.max()]
        if not len(self._lengths):
            return self.stride, self.stride
        left = self._lengths[longest] - (self.window - self.stride)
        enough = max(1, int((left - (np.maximum(-(-left // self.stride), 1) - 1) * self.stride).max()))
        return (enough, self.stride) if self.stride - enough + 1 >= enough - 1 else (1, enough - 1)

    def _regular(self, shift: int, sequence: Ints, turn: Ints) -> tuple[Ints, Ints]:
        """Returns where windows begin and end within their sequences, without limiting the ends to their lengths."""
        ahead = np.where(self._leads[sequence], shift, self.stride)
        begins = np.where(turn == 0, 0, ahead + (turn - 1) * self.stride)
        return begins, ahead + turn * self.stride + self.window - self.stride

    def _random(self, epoch: int, sequence: Ints, turn: Ints) -> tuple[Ints, Ints]:
        """Like `_regular`, with random boundaries: shared by all rows of a concatenated text."""
        if self.concatenate:
            borders = self._borders(epoch, row=0, sequence=0, length=int(self._lengths.max()))
            return borders[turn], borders[turn + 1]
        begins, ends = np.zeros_like(turn), np.zeros_like(turn)
        for row, (which, place) in enumerate(zip(sequence.tolist(), turn.tolist(), strict=True)):
            borders = self._borders(epoch, row, which, int(self._lengths[which]))
            begins[row], ends[row] = borders[place], borders[place + 1]
        return begins, ends

    def _borders(self, epoch: int, row: int, sequence: int, length: int) -> Ints:
        known = self._borders_of_row.get(row)
        if known is None or known[:2] != (epoch, sequence):
            generator = np.random.default_rng((self.seed, epoch, sequence))
            known = epoch, sequence, _random_borders(length, self.window, generator)
            self._borders_of_row[row] = known
        return known[2]


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
            opens=np.zeros_like(there),
            carry=self.length,
            time=self.length,
        ).of_rank(rank, self.ranks)

    def _batch(self, index: int) -> Ints:
        count = self.batch_size * self.ranks
        return self._begins[index * count : (index + 1) * count]


def _assign_rows(lengths: Ints, rows: int) -> Ints:
    """Returns (documents,) the row of each document: the longest first, each to the row with the fewest tokens."""
    row_of = np.zeros(len(lengths), dtype=np.int64)
    loads = [(0, row) for row in range(rows)]
    for document in np.argsort(-lengths, kind="stable").tolist():
        load, row = loads[0]
        row_of[document] = row
        heapq.heapreplace(loads, (load + int(lengths[document]), row))
    return row_of


# Merity et al. 2018, section 4.1, and the authors' code: the base length is halved with probability 0.05, a length is
# drawn from N(base, 5) and never shorter than 5.
_HALVED, _SPREAD, _SHORTEST = 0.05, 5.0, 5


def _random_windows(lengths: Ints, window: int) -> Ints:
    """Returns the number of windows of each sequence, from the mean of the drawn lengths: equal for every draw."""
    mean = max(1.0, window * (1 - _HALVED / 2))
    return np.ceil(lengths / mean).astype(np.int64)


def _random_borders(length: int, window: int, generator: np.random.Generator) -> Ints:
    """Returns (windows + 1,) boundaries from 0 to length: drawn lengths, scaled to the sequence, at least one token."""
    count = int(_random_windows(np.asarray(length), window))
    base = np.where(generator.random(count) < _HALVED, window / 2, window)
    drawn = np.maximum(generator.normal(base, _SPREAD), min(_SHORTEST, window))
    share = np.concatenate([[0.0], np.cumsum(drawn)]) / drawn.sum()
    borders = np.arange(count + 1) + np.floor(share * (length - count)).astype(np.int64)
    borders[-1] = length  # the sum of shares may differ from one by rounding
    return borders
