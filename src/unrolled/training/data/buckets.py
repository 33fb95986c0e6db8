"""Examples of similar length in one batch: the same plan on every process, for every epoch as many batches."""

from collections.abc import Callable, Iterator
from typing import Generic, TypedDict, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unrolled.wording import counted

Ints = NDArray[np.int64]
B = TypeVar("B")

_COARSE = 4  # lengths of all sides but the last are told apart in steps of this many


class BucketPlan:
    """Which examples make up each batch of an epoch.

    Examples are sorted by classes of their lengths, at random within a class, and cut where the next one would break
    the budget. Cuts look at classes alone, so that every epoch has as many batches, which a Trainer asks for once. A
    batch is planned for all processes and dealt to them row by row: two processes train like one with twice the
    budget. Nothing is lost or doubled.

    Args:
        lengths: (examples,) or (examples, sides), such as the tokens of source and target.
        batch_tokens: rows × longest row of a process's batch, for its largest side; a longer example makes a batch of
            one row per process.
        batch_size: rows of a process's batch, instead.
        ranks: number of processes.
        counts: (examples,) predictions of each example; one each by default.
        shuffle: draw anew for each epoch; otherwise from long to short.
        seed: decides, with the epoch, what is random.

    Raises:
        ValueError: not exactly one budget, one below 1, or fewer examples than processes.
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
                f"{counted(len(sides), 'example')} cannot be dealt to "
                f"{counted(ranks, 'process', 'processes')}: each batch has a row for each"
            )
        self.ranks, self.shuffle, self.seed = ranks, shuffle, seed
        self.counts = np.ones(len(sides), dtype=np.int64) if counts is None else np.asarray(counts, dtype=np.int64)
        classes = sides.copy()
        classes[:, :-1] = -(-classes[:, :-1] // _COARSE) * _COARSE
        self._classes = np.unique(classes, axis=0, return_inverse=True)[1].reshape(-1) if len(sides) else sides[:, 0]
        # Sorted by the last side, which is written, then by the others.
        order = np.lexsort(classes.T)
        rank_of_class = np.empty(int(self._classes.max(initial=-1)) + 1, dtype=np.int64)
        first = np.unique(self._classes[order], return_index=True)
        rank_of_class[first[0]] = first[1]
        self._classes = rank_of_class[self._classes]
        self._cuts = _cuts(classes[order].max(axis=1), ranks, batch_tokens, batch_size)

    @property
    def num_batches(self) -> int:
        """Batches of an epoch, for each process."""
        return len(self._cuts) + 1 if len(self._classes) else 0

    def batches(self, epoch: int) -> list[Ints]:
        """The batches of an epoch over all processes: numbers of examples."""
        if not self.num_batches:
            return []
        generator = np.random.default_rng((self.seed, epoch))
        count = len(self._classes)
        drawn = generator.random(count) if self.shuffle else np.arange(count)
        batches = np.split(np.lexsort((drawn, self._classes)), self._cuts)
        if not self.shuffle:
            return batches[::-1]
        return [batches[index] for index in generator.permutation(len(batches))]

    def of_rank(self, batch: Ints, rank: int) -> Ints:
        """A process's rows of a batch, at least one."""
        return batch[rank :: self.ranks]


def _cuts(longest: Ints, ranks: int, batch_tokens: int | None, batch_size: int | None) -> Ints:
    """Where sorted examples are cut into batches for all processes, each with at least one row for each."""
    cuts: list[int] = []
    begin, most = 0, 1
    for place, length in enumerate(longest.tolist()):
        most = max(most, length)
        rows = -(-(place - begin + 1) // ranks)  # of the fullest process, with this example
        full = rows > batch_size if batch_size is not None else rows * most > (batch_tokens or 0)
        if full and place - begin >= ranks:
            cuts.append(place)
            begin, most = place, max(1, length)
    if cuts and len(longest) - cuts[-1] < ranks:  # too few are left for a batch: the one before helps out
        last = len(longest) - ranks
        cuts[-1:] = [last] if last - (cuts[-2] if len(cuts) > 1 else 0) >= ranks else []
    return np.asarray(cuts, dtype=np.int64)


class Place(TypedDict):
    """Where a loader is: the epoch, and the batches of it that were given out."""

    epoch: int
    position: int


class BucketLoader(Generic[B]):
    """One process's batches of a plan, epoch after epoch.

    Lightning saves its place with every checkpoint and puts it back, since it has `state_dict` and `load_state_dict`.

    Args:
        plan: for all processes.
        collate: makes a batch of examples' numbers and of what the summed loss is multiplied with, so that the gradient
            of an optimizer step is the mean over all its predictions, over accumulated batches and processes.
        rank: this process.
        accumulate: batches whose gradients are added up for one step of the optimizer.
        limit: batches of an epoch that are taken (int), or their share (float).
        restart: begin with the first epoch at each iteration, as for validation.

    Raises:
        ValueError: a rank outside 0 … ranks − 1, or nothing to accumulate.
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
            raise ValueError(f"rank={rank} lies in 0 … {plan.ranks - 1} and accumulate={accumulate} is 1 or more")
        self.plan, self.collate, self.rank, self.accumulate = plan, collate, rank, accumulate
        self.epoch = 0
        self.reading = 0  # the epoch of the batch that is being collated
        self._position = 0
        self._restart = restart
        taken = limit if isinstance(limit, int) else len(self) if limit is None else int(len(self) * limit)
        self._taken = min(taken, len(self))

    def __len__(self) -> int:
        """Batches of an epoch: the same on every process and in every epoch."""
        return self.plan.num_batches

    def __iter__(self) -> Iterator[B]:
        # Looked up when the first batch is asked for: a place that is restored until then counts.
        if self._restart:
            self.epoch, self._position = 0, 0
        yield from self._batches(self.epoch, self._position)

    def state_dict(self) -> Place:
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: Place) -> None:
        """The next iteration goes on with the batch after the last one given out.

        Raises:
            ValueError: a position that this plan does not have.
        """
        if not 0 <= state["position"] <= len(self):
            raise ValueError(
                f"cannot go on after batch {state['position']} of an epoch of {len(self)}: the data, the batch size or "
                "the number of processes has changed; resume with the old ones, or start from the weights"
            )
        self.epoch, self._position = state["epoch"], state["position"]

    def _batches(self, epoch: int, position: int) -> Iterator[B]:
        batches = self.plan.batches(epoch)
        for index in range(position, self._taken):
            # Moved before the batch is given out: whoever saves while working on it has seen it.
            last = index + 1 == self._taken
            self.epoch, self._position = (epoch + 1, 0) if last else (epoch, index + 1)
            self.reading = epoch
            yield self.collate(self.plan.of_rank(batches[index], self.rank), self._scale(batches, index))

    def _scale(self, batches: list[Ints], index: int) -> float:
        first = index - index % self.accumulate
        step = batches[first : max(index + 1, min(first + self.accumulate, self._taken))]
        predictions = sum(int(self.plan.counts[batch].sum()) for batch in step)
        return self.accumulate * self.plan.ranks / max(predictions, 1)
