"""Evaluates parts of one data set on two processes, for test_evaluation: python evaluation_processes.py FOLDER."""

import json
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from unrolled.training.tasks.evaluation import Evaluation, Scored

WORLD = 2


def batches() -> list[Scored]:
    """Sums of two names, one of them of a few batches only, and rows, some of which two batches have."""
    generator = torch.Generator().manual_seed(0)
    found: list[Scored] = []
    for index in range(12):
        values = torch.rand(index % 5, generator=generator).exp()
        sums: dict[str, tuple[torch.Tensor | float, torch.Tensor | float]] = {}
        sums["loss"] = (values.sum(), torch.tensor(len(values)))
        if index % 5 == 3:
            sums["rare"] = (0.1 * index, index)
        found.append(Scored(sums, [(example, f"text {example}") for example in (11 - index, (11 - index) // 2)]))
    return found


def partitions() -> list[list[list[int]]]:
    """Ways to give the batches to the processes: of each rank, the batches in its order."""
    drawn: list[list[list[int]]] = [[list(range(12)), []], [[], list(range(12))], [[3, 8], [0, 1, 2, 4, 5, 6, 7, 9]]]
    drawn[2][1] += [10, 11]
    for seed in range(6):
        order = torch.randperm(12, generator=torch.Generator().manual_seed(seed)).tolist()
        drawn.append([order[: 2 * seed], order[2 * seed :]])
    return drawn


def process(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=WORLD)
    found, evaluation = batches(), Evaluation()
    results: list[object] = []
    for partition in partitions():
        for index in partition[rank]:
            evaluation.add(found[index])
        results.append(evaluation.gather())
    (folder / f"{rank}.json").write_text(json.dumps(results))
    distributed.destroy_process_group()


if __name__ == "__main__":
    spawn(process, (Path(sys.argv[1]),), nprocs=WORLD)
