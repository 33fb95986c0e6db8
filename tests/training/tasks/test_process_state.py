"""The state of a process of a resumed run."""

import random
from typing import Any

import numpy as np
import pytest
import torch

from unrolled.training.tasks.process_state import state_of_process
from unrolled.training.tasks.randomness import get_rng_states, set_rng_states


def states(ranks: int, rows: int) -> list[dict[str, Any]]:
    """Of processes with so many rows each; the last ones are padding. A row's state holds its number."""
    numbers = torch.arange(float(ranks * rows)).view(ranks, rows, 1).expand(-1, -1, 2)
    return [
        {
            "carried": {"train": [numbers[rank], numbers[rank] + 100], "validation": [torch.zeros(1)]},
            "random": get_rng_states(),
            "gradients": {"weight": torch.full((2,), float(rank))},
        }
        for rank in range(ranks)
    ]


def test_as_many_processes_take_what_is_theirs() -> None:
    saved = states(2, 3)
    assert state_of_process(saved, 1, 2, rows=6, seed=(1,)) == saved[1]


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("now", [1, 2, 3, 4])
def test_other_processes_take_the_states_of_their_rows(before: int, now: int) -> None:
    rows = 6
    found = [state_of_process(states(before, rows // before), rank, now, rows=rows, seed=(1,)) for rank in range(now)]
    if before == now:
        return
    h, c = (torch.cat([each["carried"]["train"][leaf] for each in found]) for leaf in (0, 1))
    assert h[:rows, 0].tolist() == list(range(rows))
    assert c[:rows, 1].tolist() == [100 + number for number in range(rows)]
    assert len(h) == -(-rows // now) * now
    assert not h[rows:].any()
    for each in found:  # the mean over processes, of a sum that each process had a part of
        assert each["gradients"]["weight"].tolist() == [(before - 1) / 2] * 2


def test_new_generators_follow_from_the_seed_and_the_rank() -> None:
    def drawn(rank: int, *seed: int) -> tuple[float, float, float]:
        set_rng_states(state_of_process(states(2, 1), rank, 3, rows=None, seed=seed)["random"])
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    before = get_rng_states()
    assert drawn(0, 1, 5) == drawn(0, 1, 5)
    every = [drawn(rank, *seed) for rank in range(3) for seed in ((1, 5), (1, 6), (2, 5))]
    assert all(len(set(column)) == len(every) for column in zip(*every, strict=True))
    set_rng_states(before)
