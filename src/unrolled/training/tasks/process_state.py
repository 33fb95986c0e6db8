"""The state of each process in a checkpoint: carried states, random generators, gradients of an incomplete step."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from unrolled.training.tasks.randomness import get_rng_states


def state_of_process(
    states: Sequence[Mapping[str, Any]], rank: int, ranks: int, *, rows: int | None, seed: Sequence[int]
) -> dict[str, Any]:
    """Returns the state of a process of a resumed run, also if the number of processes has changed.

    With the same number, it is what the process saved. With another one:

    - The carried states of all processes are joined, and each process takes the states of its rows of the batch.
    - Gradients of an incomplete step are averaged, as they would have been at its end.
    - Random generators begin anew, with a seed that follows from `seed` and the rank.

    Args:
        states: of all processes that wrote the checkpoint, in order.
        rank: rank of this process.
        ranks: number of processes of this run.
        rows: number of rows of a batch, over all processes; None if no state is carried from batch to batch.
        seed: numbers that differ between the checkpoints of a run and between runs.
    """
    if len(states) == ranks:
        return dict(states[rank])
    train = [state["carried"]["train"] for state in states if "train" in state["carried"]]
    divided = rows is not None and len(train) == len(states)
    return {
        "carried": {"train": [_divide(leaves, rows or 0, rank, ranks) for leaves in zip(*train, strict=True)]}
        if divided
        else {},
        "random": _new_generators([*seed, rank]),
        "gradients": {
            name: torch.stack([state["gradients"][name] for state in states]).mean(0) for name in states[0]["gradients"]
        },
    }


def _divide(leaves: Sequence[Tensor], rows: int, rank: int, ranks: int) -> Tensor:
    """Returns this process's rows of a state; rows that are missing at the end are zero."""
    joined = torch.cat(list(leaves))[:rows]
    count = -(-rows // ranks)
    mine = joined[rank * count : (rank + 1) * count]
    return torch.cat([mine, mine.new_zeros(count - len(mine), *mine.shape[1:])])


def _new_generators(seed: Sequence[int]) -> dict[str, Any]:
    """Returns states of generators that were seeded by these numbers. The generators themselves don't change."""
    number = int(numpy.random.SeedSequence(list(seed)).generate_state(1, numpy.uint64)[0]) >> 1
    version, numbers, gauss = random.Random(number).getstate()
    name, keys, position, has_gauss, cached = numpy.random.RandomState(number % 2**32).get_state()
    return {
        **get_rng_states(),
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.Generator().manual_seed(number).get_state(),
        "cuda": [
            torch.Generator(f"cuda:{k}").manual_seed(number).get_state() for k in range(torch.cuda.device_count())
        ],
    }
