"""What the tests of every kind of example share."""

from collections.abc import Callable

import pytest

from unrolled_tasks.classification import ClassificationData
from unrolled_tasks.classification.data import LabelledBatch


@pytest.fixture
def batches() -> Callable[..., list[LabelledBatch]]:
    """The batches of a part as they are scored: data[, part] -> list."""

    def scored(data: ClassificationData, part: str = "train") -> list[LabelledBatch]:
        data.score_part(part)
        return list(data.test_dataloader())

    return scored
