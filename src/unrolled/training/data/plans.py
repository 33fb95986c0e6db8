"""Which tokens every window of an epoch reads: pure arithmetic on lengths, the same on every process."""

import heapq
import sys
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Spans(NamedTuple):
    """What one window reads, row by row of the whole plan.

    Attributes:
        begins: (rows,) position in the text of the first target.
        lengths: (rows,) targets; 0 where the row has ended.
        skipped: (rows,) first targets that an earlier window has scored.
        reset: (rows,) the row begins a new sequence.
        opens: (rows,) the first target is the first of its document: no token comes before.
        carry: steps after which the state goes on to the next window; unbounded for all of them.
    """

    begins: Ints
    lengths: Ints
    skipped: Ints
    reset: Bools
    opens: Bools
    carry: int

    @property
    def predictions(self) -> int:
        """Predictions that count, over all rows."""
        return int((self.lengths - self.skipped).sum())


class StreamPlan:
    """A text dealt to rows that are read side by side, window after window.

    Joined, the whole text is one sequence, cut into rows of equal length (give or take a token). Otherwise each
    document is a sequence of its own: documents are dealt whole, the longest first to the row with the least to read,
    and read in the order of the text; a window never crosses the border of a document but is shorter there.

    Epochs have equally many windows, since a Trainer asks once. Therefore randomly drawn lengths are stretched to fill
    the sequence, and a random shift is drawn from those that lead to the commoner number of windows.

    Args:
        lengths: (documents,) tokens in each document; empty documents are passed over.
        rows: sequences read side by side: batch size × processes.
        window: steps that a gradient reaches back (h), and the usual length of a window.
        stride: new predictions in a window (h'); None for all of them. With a shorter stride than window, a window
            begins `stride` after the one before and only what that one has not predicted counts.
        concatenate: documents are one text.
        random_length: lengths are drawn around `window`, one in twenty around its half (Merity et al. 2018,
            "Regularizing and Optimizing LSTM Language Models", section 4.1).
        shift: an epoch's first window brings a random number of new predictions, up to stride, so that borders move.
        seed: decides, with the epoch, what is random.

    Raises:
        ValueError: a number below one, a stride above the window, or a random length with a stride or a shift.
    """

    def __init__(
        self,
        lengths: ArrayLike,
        *,
        rows: int,
        window: int,
        stride: int | None = None,
        concatenate: bool = True,
        random_length: bool = False,
        shift: bool = False,
        seed: int = 0,
    ) -> None:
        stride = window if stride is None else stride
        if min(rows, window, stride) < 1:
            raise ValueError(f"rows, window and stride must be at least 1, got {rows}, {window} and {stride}")
        if stride > window:
            raise ValueError(
                f"a stride of {stride} leaves tokens out between windows of {window}: stride is at most window"
            )
        if random_length and (shift or stride != window):
            raise ValueError(
                "random_length moves the borders of windows by itself: leave out shift, and stride or set it to window"
            )
        self.rows, self.window, self.stride, self.concatenate = rows, window, stride, concatenate
        self.random_length, self.seed = random_length, seed
        documents = np.asarray(lengths, dtype=np.int64).reshape(-1)
        self.size = int(documents.sum())
        if concatenate:
            borders = np.arange(rows + 1) * self.size // rows
            self._deal(np.arange(rows), borders[:-1], np.diff(borders), borders[:-1] == 0)
        else:
            borders = np.cumsum(documents) - documents
            self._deal(_shared_out(documents, rows), borders, documents, np.ones(len(documents), dtype=np.bool_))
        self._before = self._windows_before(stride)
        self._shifts = self._steady_shifts() if shift else (stride, stride)
        self.num_windows = int(self._windows_of_rows(self._windows_before(self._shifts[0])).max())
        self._shift = stride  # the one that _before was counted for
        self._borders_of_row: dict[int, tuple[int, int, Ints]] = {}  # epoch and sequence, their random borders

    def spans(self, epoch: int, index: int) -> Spans:
        """What the window with this index reads in this epoch.

        Raises:
            IndexError: an index outside 0 … num_windows − 1.
        """
        if not 0 <= index < self.num_windows:
            raise IndexError(f"window {index} of an epoch of {self.num_windows}")
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
        return Spans(
            begins=self._begins[sequence] + begins,
            lengths=np.where(running, np.maximum(ends - begins, 0), 0),
            skipped=np.where(running & ~first, self.window - self.stride, 0),
            reset=running & first,
            opens=running & first & self._opens[sequence],
            carry=sys.maxsize if self.stride == self.window else shift if index == 0 else self.stride,
        )

    def _deal(self, row_of: Ints, begins: Ints, lengths: Ints, opens: Bools) -> None:
        """Keeps sequences row by row, in the order of the text within a row, without the empty ones."""
        order = np.argsort(row_of, kind="stable")
        order = order[lengths[order] > 0]
        self._begins, self._lengths, self._opens = begins[order], lengths[order], opens[order]
        self._row_starts = np.searchsorted(row_of[order], np.arange(self.rows + 1))
        self._leads = np.zeros(len(order), dtype=np.bool_)  # the first sequence of its row
        self._leads[self._row_starts[:-1][np.diff(self._row_starts) > 0]] = True

    def _windows_before(self, shift: int) -> Ints:
        """(sequences + 1,): how many windows come before those of each sequence, row after row."""
        if self.random_length:
            # Joined rows share their borders, so the one with a token less has as many windows.
            lengths = np.full_like(self._lengths, self._lengths.max(initial=0)) if self.concatenate else self._lengths
            counts = _random_windows(lengths, self.window)
        else:
            ahead = np.where(self._leads, shift, self.stride) + self.window - self.stride
            counts = 1 + -(-np.maximum(self._lengths - ahead, 0) // self.stride)
        return np.concatenate([[0], np.cumsum(counts)])

    def _windows_of_rows(self, before: Ints) -> Ints:
        return np.diff(before[self._row_starts])

    def _steady_shifts(self) -> tuple[int, int]:
        """The longer range, first and last, of shifts that all lead to the same number of windows.

        A shift takes the tokens of a row's first sequence that a shift of `stride` leaves to its last window; a shift
        too short for that costs one more window. The longest rows decide.
        """
        windows = self._windows_of_rows(self._before)
        longest = self._row_starts[:-1][windows == windows.max()]
        if not len(self._lengths):
            return self.stride, self.stride
        left = self._lengths[longest] - (self.window - self.stride)
        enough = max(1, int((left - (np.maximum(-(-left // self.stride), 1) - 1) * self.stride).max()))
        return (enough, self.stride) if self.stride - enough + 1 >= enough - 1 else (1, enough - 1)

    def _regular(self, shift: int, sequence: Ints, turn: Ints) -> tuple[Ints, Ints]:
        """Where windows begin and end within their sequences, the ends as if these were endless."""
        ahead = np.where(self._leads[sequence], shift, self.stride)
        begins = np.where(turn == 0, 0, ahead + (turn - 1) * self.stride)
        return begins, ahead + turn * self.stride + self.window - self.stride

    def _random(self, epoch: int, sequence: Ints, turn: Ints) -> tuple[Ints, Ints]:
        """As `_regular`, by random borders: one draw for all rows of a concatenated text, one for each document."""
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


def _shared_out(lengths: Ints, rows: int) -> Ints:
    """(documents,) the row of each: the longest first, to the row with the least to read."""
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
    """How many windows of the mean drawn length a sequence takes: the same for every draw."""
    mean = max(1.0, window * (1 - _HALVED / 2))
    return np.ceil(lengths / mean).astype(np.int64)


def _random_borders(length: int, window: int, generator: np.random.Generator) -> Ints:
    """(windows + 1,) from 0 to length: drawn lengths, stretched to fill the sequence, none below one token."""
    count = int(_random_windows(np.asarray(length), window))
    base = np.where(generator.random(count) < _HALVED, window / 2, window)
    drawn = np.maximum(generator.normal(base, _SPREAD), min(_SHORTEST, window))
    share = np.concatenate([[0.0], np.cumsum(drawn)]) / drawn.sum()
    borders = np.arange(count + 1) + np.floor(share * (length - count)).astype(np.int64)
    borders[-1] = length  # the sum of shares may miss one by rounding
    return borders
