"""Data sets that are known before the networks that learn from them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from lightning.pytorch.trainer.trainer import Trainer
from torch import nn

from unrolled.processing.text.base import Codec

SPLITS = ("train", "validation", "test")


class DataError(ValueError):
    """Data that cannot be used as they are: says what was found, what is allowed and what helps."""


class SequenceData(LightningDataModule, ABC):
    """A data set: prepared first, then asked for its sizes, then read.

    A subclass lists its options in its constructor and implements `prepare`, `sizes`, `codec`, `splits`, `describe` and
    Lightning's loaders.
    Loaders deal their batches to processes themselves (`use_distributed_sampler=False`).
    """

    _asked_split = "test"

    network: nn.Module | None = None
    """The network that will read these data, for data that keep a part's outputs; set by `SequenceTask.attach`."""

    @abstractmethod
    def prepare(self) -> None:
        """Fetches and encodes what is not there yet.

        Every process may call it, at once and again: work is done once, behind a lock, and half of it is never seen.

        Raises:
            DataError: the data cannot be used.
        """

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """What a network must be told about the data, such as {"vocabulary": 67}; after `prepare`."""

    @abstractmethod
    def codec(self) -> Codec:
        """How the data are written as ids; after `prepare`."""

    @abstractmethod
    def describe(self) -> str:
        """One line on what there is of it, and what a test scores; after `prepare`."""

    def example(self, folder: Path) -> str | None:
        """A source of the scored split as one would give it to a command: a line of text, or the path of a file.

        After `prepare`; None if there is none of that kind.

        Args:
            folder: where a file may be written, if there is none.
        """
        return None

    def own_files(self) -> str:
        """Options of an evaluation that reads FILE instead, as one types them; empty if it can't."""
        return ""

    @abstractmethod
    def splits(self) -> Sequence[str]:
        """Those of SPLITS that there are; after `prepare`."""

    def fingerprint(self) -> str:
        """Equal for equal training examples, wherever they lie; "" where it isn't known; after `prepare`."""
        return ""

    @property
    def evaluated_split(self) -> str:
        """What the test loaders read: the split that was asked for, or the validation split where there is no test."""
        return self._asked_split if self._asked_split in self.splits() else "validation"

    def evaluate_split(self, split: str) -> None:
        """Makes the test loaders read another split: "train", "validation" or "test"; after `prepare`.

        Raises:
            DataError: there is no such split.
        """
        if split not in self.splits():
            raise DataError(
                f"there is no {split} split, only {', '.join(self.splits())}; give it data of its own, or a share of "
                "these: 'data.split_fractions=[0,0,1]' makes all of them the test"
            )
        self._asked_split = split

    def prepare_data(self) -> None:
        """Lightning's hook, for use without `unrolled.training.run.runner`."""
        self.prepare()

    def setup(self, stage: str) -> None:
        """Lightning's hook: the same on every process."""
        self.prepare()

    @property
    def ranks(self) -> int:
        """Number of processes; 1 without a trainer."""
        return self._attached.world_size if self._attached else 1

    @property
    def rank(self) -> int:
        """This process; 0 without a trainer."""
        return self._attached.global_rank if self._attached else 0

    @property
    def accumulate(self) -> int:
        """Batches whose gradients are added up for one step of the optimizer; 1 without a trainer."""
        return self._attached.accumulate_grad_batches if self._attached else 1

    @property
    def limit(self) -> int | float | None:
        """Batches of a training epoch that the trainer takes (int), or their share (float)."""
        return self._attached.limit_train_batches if self._attached else None

    @property
    def repeated(self) -> bool:
        """Whether every epoch reads the first batches of the first one again, as to learn them by heart."""
        return bool(getattr(self._attached, "overfit_batches", 0))

    @property
    def _attached(self) -> Trainer | None:
        return self.trainer


def plain(value: Any) -> Any:
    """Configuration nodes as dicts and lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
