"""A task and data of one's own, as small as they can be, through train.py and back out of the checkpoint."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Process = Callable[..., subprocess.CompletedProcess[str]]

TASK = '''
from typing import NamedTuple

import torch
from torch import Tensor
from unrolled import ByteTokenizer, Processor, squared_error
from unrolled.training import SequenceData, SequenceTask


class Batch(NamedTuple):
    numbers: Tensor  # (batch, time, 1)
    sums: Tensor  # (batch, 1)


class Sums(SequenceTask):
    """What do these numbers add up to?"""

    def loss(self, batch, loader):
        return squared_error(self.network(batch.numbers, None), batch.sums)

    def training_step(self, batch, index):
        return self.loss(batch, "train").mean


class Numbers(SequenceData):
    def __init__(self, count=40, seed=0):
        super().__init__()
        self.count, self.seed = count, seed

    def prepare(self):
        pass

    def sizes(self):
        return {"features": 1}

    def processor(self):
        return Processor(ByteTokenizer())

    def splits(self):
        return ("train", "validation", "test")

    def describe(self):
        return f"{self.count} rows of random numbers"

    def batches(self, seed):
        numbers = torch.rand(self.count, 8, 5, 1, generator=torch.Generator().manual_seed(seed))
        return [Batch(rows, rows.sum(1)) for rows in numbers]

    def loader(self, seed):
        return torch.utils.data.DataLoader(self.batches(seed), batch_size=None)

    def train_dataloader(self):
        return self.loader(self.seed)

    def val_dataloader(self):
        return self.loader(self.seed + 1)

    def test_dataloader(self):
        return self.loader(self.seed + 2)
'''

TASK_CONFIG = """
# @package _global_
task:
  _target_: mylab.sums.Sums
network:
  _target_: unrolled.SequenceClassifier
  encoder:
    _target_: unrolled.FeatureEncoder
    input_size: ${sizes.features}
    core: ${model}
    bidirectional: false
  head: {_target_: unrolled.NumbersHead, _partial_: true, num_outputs: 1}
  pooling: {_target_: unrolled.LastPooling, _partial_: true}
epochs: 3
"""

DATA_CONFIG = """
_target_: mylab.sums.Numbers
count: 40
seed: ${seed}
"""


@pytest.fixture
def lab(folder: Path) -> Path:
    for group in ("task", "data"):
        (folder / "mylab" / "conf" / group).mkdir(parents=True)
    (folder / "mylab" / "__init__.py").write_text("")
    (folder / "mylab" / "sums.py").write_text(TASK)
    (folder / "mylab/conf/task/sums.yaml").write_text(TASK_CONFIG)
    (folder / "mylab/conf/data/sums.yaml").write_text(DATA_CONFIG)
    return folder


def test_a_task_needs_a_loss_and_its_training_step(lab: Path, python: Process, train_script: str) -> None:
    asked = ["task=sums", "model.hidden_size=8", "model.num_layers=1", "model.dropout=0", "trainer=cpu", "run_dir=run"]

    done = python(train_script, "--config-dir", "mylab/conf", *asked, "optimizer.lr=0.02")

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Samples is disabled") == 1  # nothing that it could write
    assert done.stdout.count("Throughput is disabled") == 1  # nothing that it could count
    summary = json.loads((lab / "run" / "summary.json").read_text())
    assert summary["test/loss"] < 0.3  # 5/12 for who always says the mean
    again = python("-m", "unrolled", "evaluate", "--config-dir", "mylab/conf", "checkpoint=run")
    assert again.returncode == 0, again.stderr
    assert f"{summary['test/loss']:.4f}" in again.stdout


def test_data_that_cannot_take_the_networks_processor_must_have_the_same(
    lab: Path, python: Process, train_script: str
) -> None:
    asked = ["task=sums", "model.hidden_size=8", "trainer=cpu", "trainer.max_steps=2", "run_dir=run", "test=false"]
    trained = python(train_script, "--config-dir", "mylab/conf", *asked)
    assert trained.returncode == 0, trained.stderr
    code = (lab / "mylab" / "sums.py").read_text()
    (lab / "mylab" / "sums.py").write_text(
        code.replace("ByteTokenizer", "CharacterTokenizer").replace("CharacterTokenizer()", "CharacterTokenizer('ab')")
    )

    refused = python("-m", "unrolled", "evaluate", "--config-dir", "mylab/conf", "checkpoint=run")

    assert refused.returncode == 2
    assert "mylab.sums.Numbers take processor_from" in refused.stderr
