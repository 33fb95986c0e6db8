"""What every data set is told by its trainer, and by none."""

from types import SimpleNamespace

import pytest

from unrolled.processing.text.tokenizers import ByteTokenizer
from unrolled.processing.transform import Processor
from unrolled.training.data.base import DataError, SequenceData


class Counted(SequenceData):
    """Counts how often it was prepared."""

    def __init__(self) -> None:
        super().__init__()
        self.prepared = 0

    def prepare(self) -> None:
        self.prepared += 1

    def describe(self) -> str:
        return "counted"

    def splits(self) -> tuple[str, ...]:
        return ("train", "validation")

    def sizes(self) -> dict[str, int]:
        return {"vocabulary": ByteTokenizer.size}

    def processor(self) -> Processor:
        return Processor(ByteTokenizer())


def test_without_a_trainer_there_is_one_process() -> None:
    data = Counted()

    assert (data.ranks, data.rank, data.accumulate, data.limit) == (1, 0, 1, None)


def test_processes_and_accumulation_are_the_trainers() -> None:
    data = Counted()

    data.trainer = SimpleNamespace(  # pyright: ignore[reportAttributeAccessIssue]
        world_size=4, global_rank=2, accumulate_grad_batches=3, limit_train_batches=0.5
    )

    assert (data.ranks, data.rank, data.accumulate, data.limit) == (4, 2, 3, 0.5)


def test_lightnings_hooks_prepare() -> None:
    data = Counted()

    data.prepare_data()
    data.setup("fit")

    assert data.prepared == 2


def test_a_data_set_must_say_what_it_is() -> None:
    with pytest.raises(TypeError, match=r"describe.*prepare.*processor.*sizes.*splits"):
        SequenceData()  # pyright: ignore[reportAbstractUsage]
    assert issubclass(DataError, ValueError)


def test_the_part_that_was_asked_for_is_scored_if_there_is_one() -> None:
    data = Counted()

    assert data.evaluated_split == "validation"  # there are no test data
    data.evaluate_split("train")
    assert data.evaluated_split == "train"
    with pytest.raises(DataError, match="there is no test split, only train, validation"):
        data.evaluate_split("test")
