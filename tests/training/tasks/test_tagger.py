"""Tasks that predict at steps: the parts of a step's loss add up to its mean over all predictions."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled.training.run.assembly import assemble, build_task
from unrolled.training.tasks.tagger import TaggerTask

Configure = Callable[..., DictConfig]
CHOICES = ["task=tagging", "task=grammar", "task=counting data=parity", "task=long_lag data=adding"]


@pytest.mark.parametrize("choice", CHOICES)
def test_batches_of_a_step_share_its_mean(
    choice: str, folder: Any, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ["data.train_size=60", "data.validation_size=2", "data.test_size=2"]
    small = ["data.dates=60"] if "tagging" in choice else sizes
    config = configure("run", *choice.split(), *small, "data.batch_size=10", "trainer=cpu", small=False)
    parts = assemble(config)
    parts.data.prepare()
    config.sizes = parts.data.sizes()
    task: Any = build_task(config, parts).eval()
    monkeypatch.setattr(TaggerTask, "log_step", lambda *_, **__: None)
    monkeypatch.setattr(type(parts.data), "accumulate", 3)

    batches = list(islice(parts.data.train_dataloader(), 3))  # one optimizer step

    with torch.no_grad():
        shares = [float(task.training_step(batch, 0)) for batch in batches]
        losses = [task.loss(batch, "train") for batch in batches]
    wanted = sum(float(loss.total) for loss in losses) / sum(float(loss.count) for loss in losses)
    assert sum(shares) / 3 == pytest.approx(wanted, rel=1e-5)  # Lightning divides by the number of batches
    assert sum(int(batch.predictions.sum()) for batch in batches) == sum(int(loss.count) for loss in losses)
