"""Data in batches of examples of similar length."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from unrolled.training.data.base import DataError, SequenceData
from unrolled.training.data.buckets import BatchSpec, BucketPlan, Ints
from unrolled.training.data.loader import PlannedLoader
from unrolled.training.data.options import Batching

B = TypeVar("B")
Loader = PlannedLoader[str, BatchSpec, B]  # of the split with this name


class Examples(NamedTuple):
    """Lengths and numbers of predictions of a split's examples, for a `BucketPlan`."""

    lengths: Sequence[Sequence[int]] | Ints  # (examples, sides), the target last
    counts: Sequence[int] | Ints  # (examples,) number of predictions of each


class BucketData(SequenceData, Generic[B]):
    """Loads examples in batches of similar length: shuffled for training, in a fixed order for scoring.

    A subclass sets `batching` and implements `examples` and `batch`.
    """

    divides_batches = True
    batching: Batching

    @abstractmethod
    def examples(self, split: str, *, scored: bool) -> Examples:
        """Returns the lengths of a split's examples, for training or for scoring."""

    @abstractmethod
    def batch(self, split: str, spec: BatchSpec, scale: float, *, scored: bool) -> B:
        """Builds a batch of these examples.

        Args:
            split: name of the split.
            spec: indices of the examples, and the epoch.
            scale: factor of the summed loss.
            scored: whether the batch is for scoring instead of training.
        """

    def train_dataloader(self) -> Loader[B]:
        """Returns the loader of one process's training batches."""
        if "train" not in self.splits():
            raise DataError("there are no training examples")
        return self._loader("train", scored=False, restart=self.repeated, accumulate=self.accumulate, limit=self.limit)

    def val_dataloader(self) -> Loader[B] | list[Any]:
        """Returns the loader of the validation split, in order of decreasing length; an empty list without one."""
        return self._loader("validation", scored=True, restart=True) if "validation" in self.splits() else []

    def test_dataloader(self) -> Loader[B] | list[Any]:
        """Returns the loader of the evaluated split; an empty list without one."""
        return (
            self._loader(self.evaluated_split, scored=True, restart=True)
            if self.evaluated_split in self.splits()
            else []
        )

    def _loader(self, split: str, *, scored: bool, **options: Any) -> Loader[B]:
        examples = self.examples(split, scored=scored)
        plan = BucketPlan(
            examples.lengths,
            **self.batching.budget(scored=scored),
            ranks=self.ranks,
            planned_ranks=self.ranks if scored else self.planned_ranks,
            counts=examples.counts,
            shuffle=not scored,
            seed=self.batching.seed,
        )
        return PlannedLoader(
            plan, split, partial(self.batch, scored=scored), rank=self.rank, workers=self.batching.workers, **options
        )
