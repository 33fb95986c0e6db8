"""What the tests of every kind of example share."""

from collections.abc import Callable

import pytest

from unrolled_tasks.classification import ClassificationData
from unrolled_tasks.classification.data import LabelledBatch


@pytest.fixture
def batches() -> Callable[..., list[LabelledBatch]]:
    """The batches of a split as they are scored: data[, split] -> list."""

    def scored(data: ClassificationData, split: str = "train") -> list[LabelledBatch]:
        data.evaluate_split(split)
        return list(data.test_dataloader())

    return scored
