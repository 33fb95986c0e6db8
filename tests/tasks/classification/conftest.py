"""What the tests of every kind of example share."""

from collections.abc import Callable

import pytest

from unrolled_tasks.classification import ClassificationData
from unrolled_tasks.classification.data import LabeledBatch


@pytest.fixture
def batches() -> Callable[..., list[LabeledBatch]]:
    """The batches of a split as they are scored: data[, split] -> list."""

    def scored(data: ClassificationData, split: str = "train") -> list[LabeledBatch]:
        data.evaluate_split(split)
        return list(data.test_dataloader())

    return scored
