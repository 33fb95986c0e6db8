"""Learning a batch by heart: each epoch reads the same one, and the loss falls far in a moment."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from unrolled.training.run.assembly import assemble
from unrolled.training.run.runner import run

Configure = Callable[..., DictConfig]


def tensors(batch: Any) -> list[Tensor]:
    return [field for field in batch if isinstance(field, Tensor)]


@pytest.mark.parametrize("task", ["char_lm", "classification", "translation"])
@pytest.mark.parametrize("repeated", [True, False])
def test_each_epoch_reads_the_same_batches(folder: Path, configure: Configure, task: str, repeated: bool) -> None:
    pairs = [{"en": f"the number {n} is here", "de": f"die Zahl {n} ist hier"} for n in range(200)]
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    given = {
        "char_lm": [
            "data=text",
            "data.files=rhyme.txt",
            "data.batch_size=4",
            "data.window=16",
            "data.random_windows.length=16",
        ],
        "classification": [],
        "translation": ["data=pairs", "data.files=pairs.jsonl", "data.unit=character", "data.batch_tokens=200"],
    }
    chosen = [f"task={task}", *given[task], "trainer=cpu", *(["debug=overfit"] if repeated else [])]
    parts = assemble(configure("run", *chosen, small=False))
    parts.data.trainer = parts.trainer
    parts.data.prepare()
    loader: Any = parts.data.train_dataloader()

    first, second = (tensors(next(iter(loader))) for _ in range(2))
    same = [a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, second, strict=True)]
    assert len(first) > 1
    assert all(same) == repeated


def test_a_batch_is_learnt_by_heart_in_a_moment(folder: Path, configure: Configure) -> None:
    free = ["model.dropout=0", "network.output_dropout=0", "model.hidden_size=48", "optimizer.lr=2e-2"]
    run(configure("run", "debug=overfit", *free))

    with (folder / "run" / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert losses[-1] < 0.4 * losses[0]
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["steps"] <= 50
    assert not any(name.startswith("test/") for name in summary)
