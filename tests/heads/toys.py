"""Overfits a handful of sequences with every head, for test_training: python toys.py FOLDER RANKS [CHECKPOINT_STEP]."""

import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled import ByteTokenizer, Loss, Processor
from unrolled.sequences import mask_from_lengths
from unrolled.training import SequenceData, SequenceTask
from unrolled.training.data.buckets import BatchSpec, BucketPlan
from unrolled.training.data.loader import PlannedLoader

EXAMPLES, LABELS, EPOCHS = 8, 3, 60
CORE = {
    "_target_": "unrolled.Recurrent",
    "_partial_": True,
    "cell": {"_target_": "unrolled.LSTMCell", "_partial_": True},
    "hidden_size": 24,
}
HEADS: dict[str, tuple[int, dict[str, Any]]] = {  # size of a frame, 0 for tokens; and the options of the head
    "Categorical": (0, {"num_classes": 5}),
    "Labels": (4, {"num_labels": 4}),
    "Numbers": (2, {"num_outputs": 2}),
    "Quantile": (2, {"num_outputs": 2}),
    "Mixture": (3, {"num_components": 2, "min_scale": 0.05}),
    "CTC": (2, {"num_classes": LABELS + 1}),
}


def description(kind: str) -> dict[str, Any]:
    size, options = HEADS[kind]
    head = {"_target_": f"unrolled.{kind}Head", "_partial_": True, **options}
    if kind == "CTC":
        encoder = {"_target_": "unrolled.FeatureEncoder", "input_size": size, "core": CORE}
        return {"_target_": "unrolled.SequenceTagger", "encoder": encoder, "head": head}
    tokens = {"_target_": "unrolled.TokenEmbedding", "vocabulary_size": 5, "size": 8}
    frames = {"_target_": "unrolled.FrameEmbedding", "input_size": size or 1}
    return {
        "_target_": "unrolled.AutoregressiveDecoder",
        "embedding": frames if size else tokens,
        "core": CORE,
        "head": head,
    }


class Batch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    lengths: Tensor
    target_lengths: Tensor
    scale: float


class Toy(SequenceTask):
    """Predicts the next step of each sequence, or its transcript."""

    def loss(self, batch: Batch, loader: str) -> Loss:
        network: Any = self.network
        mask = mask_from_lengths(batch.lengths, batch.inputs.shape[1])
        if not hasattr(network, "start"):
            target_mask = mask_from_lengths(batch.target_lengths, batch.targets.shape[1])
            return network.head.loss(network(batch.inputs, batch.lengths), batch.targets, mask, target_mask)
        decoded = network(batch.inputs, None, None, batch.lengths)
        return network.head.loss(decoded.parameters, batch.targets, mask)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch, "train")
        self.log("loss", loss.mean.detach())
        return loss.total * batch.scale


class ToyData(SequenceData):
    """A handful of random sequences of several lengths."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        generator = torch.Generator().manual_seed(0)
        size = HEADS[kind][0]
        self.sequences: list[Tensor] = []
        self.transcripts: list[Tensor] = []
        for example in range(EXAMPLES):
            time = 5 + example % 4
            if size == 0:
                self.sequences.append(torch.randint(5, (time,), generator=generator))
                continue
            frames = torch.randn(time, size, generator=generator, dtype=torch.float64)
            if kind == "Labels":
                frames = (frames > 0).double()
            if kind == "Mixture":
                frames[:, 2] = (frames[:, 2] > 0).double()
            self.sequences.append(frames)
            self.transcripts.append(torch.randint(1, LABELS + 1, (1 + example % 2,), generator=generator))

    def prepare(self) -> None: ...

    def sizes(self) -> dict[str, int]:
        return {}

    def processor(self) -> Processor:
        return Processor(ByteTokenizer())

    def splits(self) -> Sequence[str]:
        return ("train",)

    def describe(self) -> str:
        return f"{EXAMPLES} sequences"

    def train_dataloader(self) -> Any:
        ctc = self.kind == "CTC"
        lengths = [len(each) - (not ctc) for each in self.sequences]
        counts = [1] * EXAMPLES if ctc else lengths
        plan = BucketPlan(lengths, batch_size=4 // self.ranks, ranks=self.ranks, counts=counts)
        return PlannedLoader(plan, self.sequences, self._batch, rank=self.rank)

    def _batch(self, store: list[Tensor], spec: BatchSpec, scale: float) -> Batch:
        chosen = [store[row] for row in spec.rows]
        if self.kind == "CTC":
            inputs, targets = chosen, [self.transcripts[row] for row in spec.rows]
        else:
            inputs, targets = [each[:-1] for each in chosen], [each[1:] for each in chosen]
        lengths, target_lengths = (torch.tensor([len(each) for each in side]) for side in (inputs, targets))
        return Batch(
            pad_sequence(inputs, batch_first=True),
            pad_sequence(targets, batch_first=True),
            lengths,
            target_lengths,
            scale,
        )


def mean_loss(task: Toy, kind: str) -> float:
    with torch.no_grad():
        losses = [task.double().loss(batch, "train") for batch in ToyData(kind).train_dataloader()]
    return float(sum(loss.total for loss in losses) / sum(loss.count for loss in losses))


def fit(kind: str, folder: Path, ranks: int, checkpoint: Path | None) -> dict[str, Any]:
    torch.manual_seed(1)
    task = Toy(
        description(kind), Processor(ByteTokenizer()), optimizer=partial(torch.optim.AdamW, lr=2e-2, weight_decay=0.0)
    )
    untrained = mean_loss(task, kind)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        precision="64-true",
        max_epochs=EPOCHS,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
        callbacks=[ModelCheckpoint(folder / kind, filename="{step}", every_n_train_steps=45, save_top_k=-1)],
    )
    trainer.fit(task, ToyData(kind), ckpt_path=checkpoint, weights_only=True)
    weights = [parameter.detach().flatten() for parameter in task.network.parameters()]
    return {"untrained": untrained, "loss": mean_loss(task, kind), "weights": torch.cat(weights).tolist()}


def main(folder: Path, ranks: int, step: int | None) -> None:
    torch.set_num_threads(1)
    found = {}
    for kind in HEADS:
        checkpoint = None if step is None else folder / kind / f"step={step}.ckpt"
        found[kind] = fit(kind, folder, ranks, checkpoint)
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        (folder / f"ranks{ranks}-step{step}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    os.environ.setdefault("PL_TORCH_DISTRIBUTED_BACKEND", "gloo")
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
