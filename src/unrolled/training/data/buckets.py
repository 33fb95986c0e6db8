"""Batches of examples of similar length, with the same plan on every process and equally many in every epoch."""

from collections.abc import Callable, Iterator
from typing import Generic, TypedDict, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unrolled.wording import counted

Ints = NDArray[np.int64]
B = TypeVar("B")

_LENGTH_STEP = 4  # lengths of all sides but the last are rounded up to multiples of this number


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
        ranks: number of processes.
        counts: (examples,) number of predictions of each example; one each by default.
        shuffle: shuffle anew for each epoch; otherwise in order of decreasing length.
        seed: seed of the shuffling, together with the epoch.

    Raises:
        ValueError: not exactly one budget, a budget below 1, or fewer examples than processes.
    """

    def __init__(
        self,
        lengths: ArrayLike,
        *,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        ranks: int = 1,
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
        self._boundaries = _boundaries(classes[order].max(axis=1), ranks, batch_tokens, batch_size)

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

    def of_rank(self, batch: Ints, rank: int) -> Ints:
        """Returns a process's rows of a batch, at least one."""
        return batch[rank :: self.ranks]


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


class LoaderState(TypedDict):
    """Position of a loader: the epoch, and the number of its batches that were returned."""

    epoch: int
    position: int


class BucketLoader(Generic[B]):
    """Iterates over one process's batches of a plan, epoch after epoch.

    Lightning saves and restores its position with every checkpoint (`state_dict`, `load_state_dict`).

    Args:
        plan: the batches for all processes.
        collate: builds a batch from indices of examples and the factor of the summed loss. With this factor, the
            gradient of an optimizer step is the mean over all its predictions, in accumulated batches and processes.
        rank: rank of this process.
        accumulate: number of batches whose gradients are accumulated for an optimizer step.
        limit: number of batches of an epoch that are used (int), or their fraction (float).
        restart: begin with the first epoch at each iteration, as for validation.

    Raises:
        ValueError: a rank outside 0 … ranks − 1, or accumulate below 1.
    """

    def __init__(
        self,
        plan: BucketPlan,
        collate: Callable[[Ints, float], B],
        *,
        rank: int = 0,
        accumulate: int = 1,
        limit: int | float | None = None,
        restart: bool = False,
    ) -> None:
        if not 0 <= rank < plan.ranks or accumulate < 1:
            raise ValueError(f"rank={rank} must be in 0 … {plan.ranks - 1}, and accumulate={accumulate} 1 or more")
        self.plan, self.collate, self.rank, self.accumulate = plan, collate, rank, accumulate
        self.epoch = 0
        self.batch_epoch = 0  # epoch of the batch that `collate` builds
        self._position = 0
        self._restart = restart
        taken = limit if isinstance(limit, int) else len(self) if limit is None else int(len(self) * limit)
        self._taken = min(taken, len(self))

    def __len__(self) -> int:
        """Number of batches of an epoch, equal on every process and in every epoch."""
        return self.plan.num_batches

    def __iter__(self) -> Iterator[B]:
        # Evaluated with the first batch, so that a position restored before then is used.
        if self._restart:
            self.epoch, self._position = 0, 0
        yield from self._batches(self.epoch, self._position)

    def state_dict(self) -> LoaderState:
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: LoaderState) -> None:
        """Restores a position: the next iteration continues after the last returned batch.

        Raises:
            ValueError: the position is outside this plan.
        """
        if not 0 <= state["position"] <= len(self):
            raise ValueError(
                f"cannot resume after batch {state['position']} of an epoch of {len(self)}: the data, the batch size "
                "or the number of processes has changed; resume with the old ones, or start from the weights"
            )
        self.epoch, self._position = state["epoch"], state["position"]

    def _batches(self, epoch: int, position: int) -> Iterator[B]:
        batches = self.plan.batches(epoch)
        for index in range(position, self._taken):
            # Updated before the batch is returned: a checkpoint saved during its step counts it as read.
            last = index + 1 == self._taken
            self.epoch, self._position = (epoch + 1, 0) if last else (epoch, index + 1)
            self.batch_epoch = epoch
            yield self.collate(self.plan.of_rank(batches[index], self.rank), self._scale(batches, index))

    def _scale(self, batches: list[Ints], index: int) -> float:
        first = index - index % self.accumulate
        step = batches[first : max(index + 1, min(first + self.accumulate, self._taken))]
        predictions = sum(int(self.plan.counts[batch].sum()) for batch in step)
        return self.accumulate * self.plan.ranks / max(predictions, 1)
