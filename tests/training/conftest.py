"""Looking at the processes of a run."""

import os
import time
from collections.abc import Callable

import pytest


@pytest.fixture
def is_gone() -> Callable[[int], bool]:
    """Whether no process of a session is left, within half a minute."""

    def gone(group: int) -> bool:
        for _ in range(60):
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.5)
        return False

    return gone
