"""The base class of all data sets."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning import LightningDataModule
from lightning.pytorch.trainer.trainer import Trainer
from torch import nn

from unrolled.processing.transform import Processor

SPLITS = ("train", "validation", "test")


class DataError(ValueError):
    """Data that cannot be used. The message names the value, what is allowed, and a remedy."""


class SequenceData(LightningDataModule, ABC):
    """A LightningDataModule that gives the sizes of its data before the network is built.

    A subclass takes its options in its constructor and implements `prepare`, `sizes`, `processor`, `splits`,
    `describe` and Lightning's dataloader hooks. The loaders distribute their batches to processes themselves
    (`use_distributed_sampler=False`).
    """

    divides_batches: ClassVar[bool] = False
    """Whether training batches are made for `planned_ranks` processes, and divided among `ranks`; see `plan_for`."""

    _requested_split = "test"
    _planned_ranks: int | None = None

    network: nn.Module | None = None
    """The network that reads these data, for data that cache outputs of a part of it; set by `SequenceTask.attach`."""

    @abstractmethod
    def prepare(self) -> None:
        """Loads and encodes the data, unless this is already done.

        Every process may call it, concurrently and repeatedly. A lock ensures that the work is done once, and an
        incomplete result is never visible.

        Raises:
            DataError: the data cannot be used.
        """

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Returns the sizes that a network depends on, such as {"vocabulary": 67}. Call `prepare` first."""

    @abstractmethod
    def processor(self) -> Processor:
        """Returns the transforms of sources and targets. Call `prepare` first."""

    @abstractmethod
    def describe(self) -> str:
        """Returns one line with the size of each split and the split that a test scores. Call `prepare` first."""

    def example(self, folder: Path) -> str | None:
        """Returns a source of the scored split as an argument of a command: a line of text, or the path of a file.

        None if there is none of that kind. Call `prepare` first.

        Args:
            folder: the folder for a new file, if the source is not a file.
        """
        return None

    def own_files(self) -> str:
        """Returns the overrides of an evaluation on the user's FILE; empty if that is not supported."""
        return ""

    @abstractmethod
    def splits(self) -> Sequence[str]:
        """Returns the existing splits, in the order of SPLITS. Call `prepare` first."""

    def fingerprint(self) -> str:
        """Returns a hash of the training examples, independent of their paths; "" if unknown. Call `prepare` first."""
        return ""

    @property
    def evaluated_split(self) -> str:
        """The split that test loaders read: the requested one, or validation if there is no test split."""
        return self._requested_split if self._requested_split in self.splits() else "validation"

    def evaluate_split(self, split: str) -> None:
        """Sets the split that test loaders read: "train", "validation" or "test". Call `prepare` first.

        Raises:
            DataError: there is no such split.
        """
        if split not in self.splits():
            raise DataError(
                f"there is no {split} split, only {', '.join(self.splits())}; give it its own data, or a fraction of "
                "these: 'data.split_fractions=[0,0,1]' uses all of them as the test split"
            )
        self._requested_split = split

    def prepare_data(self) -> None:
        """Calls `prepare`, for use without `unrolled.training.run.runner`."""
        self.prepare()

    def setup(self, stage: str) -> None:
        """Calls `prepare` on every process."""
        self.prepare()

    @property
    def ranks(self) -> int:
        """Number of processes; 1 without a trainer."""
        return self._attached.world_size if self._attached else 1

    @property
    def planned_ranks(self) -> int:
        """Number of processes that training batches are made for: that of this run, or of the one that it resumes."""
        return self._planned_ranks or self.ranks

    def plan_for(self, ranks: int) -> None:
        """Makes the training batches of a run with this number of processes, and divides them among those of this run.

        So a run that is resumed with another number of processes reads the same batches, of the same total size.

        Raises:
            DataError: these data do not support it.
        """
        if not self.divides_batches:
            raise DataError(
                f"{type(self).__name__} cannot divide the batches of a run with another number of processes "
                f"({ranks}); resume with as many, or start from the weights alone: init_from=PATH"
            )
        self._planned_ranks = ranks

    @property
    def rank(self) -> int:
        """Rank of this process; 0 without a trainer."""
        return self._attached.global_rank if self._attached else 0

    @property
    def accumulate(self) -> int:
        """Number of batches whose gradients are accumulated for an optimizer step; 1 without a trainer."""
        return self._attached.accumulate_grad_batches if self._attached else 1

    @property
    def limit(self) -> int | float | None:
        """The trainer's limit_train_batches: a number of batches (int) or a fraction (float); None without one."""
        return self._attached.limit_train_batches if self._attached else None

    @property
    def repeated(self) -> bool:
        """Whether every epoch repeats the first batches of the first epoch (the trainer's overfit_batches)."""
        return bool(getattr(self._attached, "overfit_batches", 0))

    @property
    def _attached(self) -> Trainer | None:
        return self.trainer


def plain(value: Any) -> Any:
    """Converts configuration nodes to dicts and lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
