"""Laws of a run that the tests of several tasks check."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.training.run.runner import run


@pytest.fixture
def check_resumption(folder: Path, configure: Callable[..., DictConfig]) -> Callable[..., None]:
    """Check that a run that ends at a step and is resumed has the weights of one that did not end: options, step."""

    def check(*options: str, step: int, epochs: int = 2) -> None:
        common = [*options, "scheduler=none", "test=false"]
        run(configure("one", *common, f"trainer.max_epochs={epochs}", small=False))
        run(configure("part", *common, f"trainer.max_steps={step}", "trainer.max_epochs=-1", small=False))
        last = folder / "part" / "checkpoints" / "last.ckpt"
        run(configure("rest", *common, f"trainer.max_epochs={epochs}", f"resume={last}", small=False))

        one, other = (load_bundle(folder / name / "checkpoints" / "last.ckpt").network for name in ("one", "rest"))
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name

    return check


@pytest.fixture
def run_in_one_and_two(
    folder: Path,
    configure: Callable[..., DictConfig],
    python: Callable[..., subprocess.CompletedProcess[str]],
    train_script: str,
) -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """Train in this process, and in two with the joined batch of 8, and return both summaries: options."""

    def train(*options: str) -> tuple[dict[str, Any], dict[str, Any]]:
        run(configure("one", *options, "data.batch_size=8", small=False))
        two = ["data.batch_size=4", "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two"]
        done = python(train_script, *options, *two)
        assert done.returncode == 0, done.stderr
        one, other = (json.loads((folder / name / "summary.json").read_text()) for name in ("one", "two"))
        return one, other

    return train
