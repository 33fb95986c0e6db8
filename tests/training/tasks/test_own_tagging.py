"""Tagging as somebody's own project: its own data and task beside the package, found by --config-dir."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch

Process = Callable[..., subprocess.CompletedProcess[str]]

CODE = '''
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled import LabelSequenceEncoder, Processor
from unrolled.sequences import mask_from_lengths
from unrolled.training import SequenceTask
from unrolled.training.data.bucketed import BucketData, Examples
from unrolled.training.data.options import Batching, SourceOptions
from unrolled.training.data.rows import split_rows
from unrolled.training.data.splitting import Split
from unrolled.training.data.words import WordOptions
from unrolled.training.tasks.evaluation import Scored


class Batch(NamedTuple):
    source: Tensor
    lengths: Tensor
    tags: Tensor
    scale: float


class Tags(SequenceTask):
    """A label for each word."""

    def loss(self, batch, loader):
        mask = mask_from_lengths(batch.lengths, batch.tags.shape[1])
        return self.network.head.loss(self.network(batch.source, batch.lengths), batch.tags, mask)

    def training_step(self, batch, index):
        loss = self.loss(batch, "train")
        return loss.total * batch.scale

    def score(self, batch, loader):
        loss = self.loss(batch, loader)
        predicted = self.network(batch.source, batch.lengths).argmax(-1)
        right = (predicted == batch.tags) & mask_from_lengths(batch.lengths, batch.tags.shape[1])
        return Scored({"loss": loss, "accuracy": (right.sum(), loss.count)})


class Sentences(BucketData):
    def __init__(self, files, seed=0):
        super().__init__()
        self.files, self.splits_, self.batching = files, {}, Batching(batch_size=8, seed=seed)

    def prepare(self):
        if self.splits_:
            return
        rows = split_rows(SourceOptions(files=self.files), Split(split_fractions=(0.8, 0.1, 0.1)))
        words = {split: [row.values["words"] for row in several] for split, several in rows.items()}
        tags = {split: [row.values["tags"] for row in several] for split, several in rows.items()}
        labels = sorted({tag for several in tags.values() for one in several for tag in one})
        self.transforms = Processor(WordOptions(unit="word").fit(words["train"]), LabelSequenceEncoder(labels))
        source, target = self.transforms
        for split in rows:
            pairs = zip(words[split], tags[split])
            self.splits_[split] = [(torch.tensor(source.encode(w)), torch.tensor(target.encode(t))) for w, t in pairs]

    def sizes(self):
        return {"vocabulary": self.transforms.source.size, "outputs": self.transforms.target.size}

    def processor(self):
        return self.transforms

    def splits(self):
        return tuple(self.splits_)

    def describe(self):
        return ", ".join(f"{split} {len(rows)}" for split, rows in self.splits_.items()) + " sentences"

    def examples(self, split, *, scored):
        lengths = [len(words) for words, _ in self.splits_[split]]
        return Examples([[n] for n in lengths], lengths)

    def batch(self, split, spec, scale, *, scored):
        words, tags = zip(*(self.splits_[split][row] for row in spec.rows))
        lengths = torch.tensor([len(row) for row in words])
        return Batch(pad_sequence(words, batch_first=True), lengths, pad_sequence(tags, batch_first=True), scale)
'''

TASK_CONFIG = """
# @package _global_
task:
  _target_: mylab.tags.Tags
network:
  _target_: unrolled.SequenceTagger
  encoder:
    _target_: unrolled.RecurrentEncoder
    embedding: {_target_: unrolled.TokenEmbedding, vocabulary_size: "${sizes.vocabulary}", size: 16}
    core: ${model}
  head: {_target_: unrolled.CategoricalHead, _partial_: true, num_classes: "${sizes.outputs}"}
monitor: {metric: validation/accuracy, mode: max}
epochs: 12
validation_interval: 1.0
"""

DATA_CONFIG = """
_target_: mylab.tags.Sentences
files: sentences.jsonl
seed: ${seed}
"""


def test_a_tagger_of_ones_own(folder: Path, python: Process, train_script: str) -> None:
    for group in ("task", "data"):
        (folder / "mylab" / "conf" / group).mkdir(parents=True)
    for name, content in {
        "__init__.py": "",
        "tags.py": CODE,
        "conf/task/tags.yaml": TASK_CONFIG,
        "conf/data/tags.yaml": DATA_CONFIG,
    }.items():
        (folder / "mylab" / name).write_text(content)
    rows = []
    for drawn in torch.randint(3, (150, 6), generator=torch.Generator().manual_seed(0)).tolist():
        tags = ["again" if n and word == drawn[n - 1] else "new" for n, word in enumerate(drawn)]
        rows.append({"words": [f"w{word}" for word in drawn], "tags": tags})
    (folder / "sentences.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = ["task=tags", "model=gru", "model.hidden_size=16", "model.num_layers=1", "model.dropout=0", "trainer=cpu"]

    done = python(train_script, "--config-dir", "mylab/conf", *asked, "optimizer.lr=0.02", "run_dir=run")

    assert done.returncode == 0, done.stderr
    assert len(CODE.splitlines()) + len(TASK_CONFIG.splitlines()) + len(DATA_CONFIG.splitlines()) < 120
    assert json.loads((folder / "run" / "summary.json").read_text())["test/accuracy"] > 0.95
    assert done.stdout.count("Samples is disabled") == 1
    again = python("-m", "unrolled", "evaluate", "--config-dir", "mylab/conf", "checkpoint=run")
    assert again.returncode == 0, again.stderr
