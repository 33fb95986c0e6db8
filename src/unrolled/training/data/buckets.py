"""Batches of examples of similar length, with the same plan on every process and equally many in every epoch."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unrolled.wording import counted

Ints = NDArray[np.int64]

_LENGTH_STEP = 4  # lengths of all sides but the last are rounded up to multiples of this number


class BatchSpec(NamedTuple):
    """One process's batch: the indices of its examples, and the epoch, on which an augmentation may depend."""

    rows: Ints
    epoch: int


class BucketPlan:
    """Assigns examples to the batches of an epoch.

    Examples are sorted by classes of their lengths, in random order within a class, and a new batch begins where the
    next example would exceed the budget. The boundaries depend on the classes alone, so that all epochs have the same
    number of batches, which a Trainer reads once. A batch is planned for all processes and distributed row by row: two
    processes train like one with twice the budget. Every example occurs exactly once in an epoch.

    Args:
        lengths: (examples,) or (examples, sides), such as the numbers of tokens of source and target.
        batch_tokens: maximum of rows × longest row of a process's batch, for its largest side; a longer example makes
            a batch of one row per process.
        batch_size: number of rows of a process's batch, as an alternative.
        ranks: number of processes, to which the rows of a batch are distributed.
        planned_ranks: number of processes whose budgets together are that of a batch; None for `ranks`.
        counts: (examples,) number of predictions of each example; one each by default.
        shuffle: shuffle anew for each epoch; otherwise in order of decreasing length.
        seed: seed of the shuffling, together with the epoch.

    Raises:
        ValueError: not exactly one budget, a budget below 1, fewer examples than processes, or batches for other
            processes with fewer rows than these.
    """

    def __init__(
        self,
        lengths: ArrayLike,
        *,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        ranks: int = 1,
        planned_ranks: int | None = None,
        counts: ArrayLike | None = None,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        budget = batch_size if batch_tokens is None else batch_tokens
        if (batch_tokens is None) == (batch_size is None) or budget is None or budget < 1:
            raise ValueError(f"give one of batch_tokens and batch_size, 1 or more; got {batch_tokens} and {batch_size}")
        sides = np.asarray(lengths, dtype=np.int64)
        sides = sides[:, None] if sides.ndim == 1 else sides
        if len(sides) < ranks:
            raise ValueError(
                f"{counted(len(sides), 'example')} cannot be distributed to "
                f"{counted(ranks, 'process', 'processes')}: each batch needs a row for each process"
            )
        self.ranks, self.shuffle, self.seed = ranks, shuffle, seed
        self.counts = np.ones(len(sides), dtype=np.int64) if counts is None else np.asarray(counts, dtype=np.int64)
        classes = sides.copy()
        classes[:, :-1] = -(-classes[:, :-1] // _LENGTH_STEP) * _LENGTH_STEP
        self._classes = np.unique(classes, axis=0, return_inverse=True)[1].reshape(-1) if len(sides) else sides[:, 0]
        # Sorted by the last side, the target, then by the others.
        order = np.lexsort(classes.T)
        rank_of_class = np.empty(int(self._classes.max(initial=-1)) + 1, dtype=np.int64)
        first = np.unique(self._classes[order], return_index=True)
        rank_of_class[first[0]] = first[1]
        self._classes = rank_of_class[self._classes]
        planned = planned_ranks or ranks
        self._boundaries = _boundaries(classes[order].max(axis=1), planned, batch_tokens, batch_size)
        fewest = int(np.diff(self._boundaries, prepend=0, append=len(order)).min())
        if planned != ranks and len(order) and fewest < ranks:
            raise ValueError(
                f"the batches for {counted(planned, 'process', 'processes')} have {counted(fewest, 'row')} or more, "
                f"which cannot be divided among {counted(ranks, 'process', 'processes')}: give at most {fewest}"
            )
        self._drawn: tuple[int, list[Ints]] = (-1, [])  # the last epoch and its batches

    @property
    def num_batches(self) -> int:
        """Number of batches of an epoch, for each process."""
        return len(self._boundaries) + 1 if len(self._classes) else 0

    def batches(self, epoch: int) -> list[Ints]:
        """Returns the batches of an epoch over all processes, as indices of examples."""
        if not self.num_batches:
            return []
        generator = np.random.default_rng((self.seed, epoch))
        count = len(self._classes)
        drawn = generator.random(count) if self.shuffle else np.arange(count)
        batches = np.split(np.lexsort((drawn, self._classes)), self._boundaries)
        if not self.shuffle:
            return batches[::-1]
        return [batches[index] for index in generator.permutation(len(batches))]

    def predictions(self, epoch: int, index: int) -> int:
        """Returns the number of predictions of a batch, over all processes."""
        return int(self.counts[self._batch(epoch, index)].sum())

    def examples_before(self, epoch: int, index: int, taken: int) -> int:
        """Returns the number of examples, over all processes, that are read before a batch from the first epoch on.

        Args:
            epoch: number of complete epochs.
            index: number of batches of the next one.
            taken: number of batches of an epoch that are used.
        """
        if taken >= self.num_batches:
            return epoch * len(self._classes) + sum(map(len, self.batches(epoch)[:index]))
        return sum(len(b) for e in range(epoch + 1) for b in self.batches(e)[: index if e == epoch else taken])

    def item(self, epoch: int, index: int, rank: int) -> BatchSpec:
        """Returns a process's rows of a batch, at least one."""
        return BatchSpec(self._batch(epoch, index)[rank :: self.ranks], epoch)

    def _batch(self, epoch: int, index: int) -> Ints:
        if self._drawn[0] != epoch:
            self._drawn = (epoch, self.batches(epoch))
        return self._drawn[1][index]


def _boundaries(longest: Ints, ranks: int, batch_tokens: int | None, batch_size: int | None) -> Ints:
    """Returns the boundaries of batches in the sorted examples; each batch has a row for each process."""
    boundaries: list[int] = []
    begin, most = 0, 1
    for place, length in enumerate(longest.tolist()):
        most = max(most, length)
        rows = -(-(place - begin + 1) // ranks)  # of the fullest process, with this example
        full = rows > batch_size if batch_size is not None else rows * most > (batch_tokens or 0)
        if full and place - begin >= ranks:
            boundaries.append(place)
            begin, most = place, max(1, length)
    if boundaries and len(longest) - boundaries[-1] < ranks:  # the last batch is too small: take rows of the one before
        last = len(longest) - ranks
        boundaries[-1:] = [last] if last - (boundaries[-2] if len(boundaries) > 1 else 0) >= ranks else []
    return np.asarray(boundaries, dtype=np.int64)
