"""Sequences laid over one another: what is mixed, and what is learned of it."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch.nn.functional import cross_entropy

from unrolled import load_bundle
from unrolled.training.run.runner import run
from unrolled_tasks.classification import task
from unrolled_tasks.classification.mixup import mixup

Configure = Callable[..., DictConfig]


def test_each_sequence_is_mixed_with_another_by_a_share_of_a_half_or_more() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([5, 3, 4, 0])
    source = torch.randn(4, 5, 2) * (torch.arange(5) < lengths.unsqueeze(1)).unsqueeze(-1)
    shares: list[float] = []

    for _ in range(400):
        values, longest, share, others = mixup(source, lengths, 0.3)
        shares.append(share)
        torch.testing.assert_close(values, share * source + (1 - share) * source[others])
        assert longest.tolist() == [max(int(lengths[n]), int(lengths[others[n]])) for n in range(4)]
        assert sorted(others.tolist()) == [0, 1, 2, 3]

    assert 0.5 <= min(shares) < 0.6 < 0.99 < max(shares) <= 1.0
    # E|X - 1/2| of Beta(a, a) is 2^(1 - 2a) Γ(2a) / (2a Γ(a)²), from its density.
    a = torch.tensor(0.3)
    away = 2 ** (1 - 2 * a) * torch.exp(torch.lgamma(2 * a) - 2 * torch.lgamma(a)) / (2 * a)
    assert sum(shares) / 400 - 0.5 == pytest.approx(float(away), abs=0.025)


def test_the_loss_is_that_of_both_answers_by_their_shares(
    folder: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    step = task.Classification.training_step
    monkeypatch.setattr(
        task.Classification, "training_step", lambda *given: (seen.update(batch=given[1]), step(*given))[1]
    )
    monkeypatch.setattr(task, "mixup", lambda *given: seen.setdefault("mixed", mixup(*given)))
    options = ["model.num_layers=1", "model.dropout=0", "network.output_dropout=0", "task.mixup=0.5", "test=false"]
    options += ["trainer.max_steps=1", "trainer.log_every_n_steps=1", "optimizer.lr=1e-12", "trainer=cpu"]

    run(configure("run", "task=classification", *options, small=False))

    network = load_bundle(folder / "run" / "checkpoints" / "last.ckpt").network
    source, lengths, share, others = seen["mixed"]
    with torch.no_grad():
        outputs = network(source, lengths)
    targets = seen["batch"].targets
    own, other = cross_entropy(outputs, targets), cross_entropy(outputs, targets[others])
    rows = csv.DictReader((folder / "run" / "metrics.csv").read_text().splitlines())
    (loss,) = [float(row["train/loss"]) for row in rows if row.get("train/loss")]
    assert loss == pytest.approx(float(share * own + (1 - share) * other), rel=1e-5)
    assert float((own - other).abs()) > 4 * 1e-5 * loss  # so that a wrong share would be seen
