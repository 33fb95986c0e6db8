"""Training a classifier through the package, beside one written from a tutorial's parts over nn.LSTM.

    python benchmarks/classification.py --steps 60 --rounds 5 --threads 1 data=speech data.files=FOLDER \
        data.modality.augmentation=null

Both read the same batches of the same data and have layers of the same sizes: a bidirectional LSTM, the mean over the
valid steps, dropout, a linear layer. By hand, batches are packed for nn.LSTM, the gradient's norm is clipped and AdamW
steps; the package does so through Lightning with its default callbacks and loggers. They alternate in one process; each
figure is the median over rounds of the sequences per second between the warm-up and the last step.
"""

import argparse
import statistics
import tempfile
import time
from typing import Any

import torch
from lightning.pytorch import Callback
from omegaconf import DictConfig
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from unrolled.training.run import compose
from unrolled.training.run.allocator import keep_freed_memory
from unrolled.training.run.assembly import assemble, build_task

WARM_UP = 10


class Stamp(Callback):
    """The time when each step was done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.times.append(time.perf_counter())


class Bare(nn.Module):
    """What one would write without any package."""

    def __init__(self, sizes: dict[str, int], config: DictConfig) -> None:
        super().__init__()
        options = config.encoder[config.data.unit]
        inputs = sizes["features"]
        self.embedding: nn.Embedding | None = None
        if config.data.unit == "token":
            inputs = options.embedding.size
            self.embedding = nn.Embedding(sizes["vocabulary"], inputs)
        self.dropout = nn.Dropout(options.input_dropout)
        self.lstm = nn.LSTM(inputs, options.hidden_size, options.num_layers, batch_first=True, bidirectional=True)
        self.output_dropout = nn.Dropout(config.network.output_dropout)
        self.output = nn.Linear(2 * options.hidden_size, sizes["outputs"])

    def forward(self, source: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        inputs = self.dropout(source if self.embedding is None else self.embedding(source))
        packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        values, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.output(self.output_dropout(values.sum(1) / lengths.unsqueeze(1)))


# The network that `Bare` is.
PLAIN = ("pooling=mean", "network.wide=null", "task.groups=null")


def configuration(folder: str, steps: int, extra: list[str]) -> DictConfig:
    overrides = ["task=classification", "model=lstm", f"run_dir={folder}", "trainer=cpu", "test=false"]
    overrides += [f"trainer.max_steps={steps}", "trainer.max_epochs=-1", "+trainer.limit_val_batches=0"]
    return compose(*overrides, *PLAIN, "+trainer.num_sanity_val_steps=0", *extra)


def prepared(config: DictConfig) -> Any:
    parts = assemble(config)
    parts.data.prepare()
    config.sizes = parts.data.sizes()
    return parts


def batches(loader: Any) -> Any:
    while True:
        yield from loader


def bare(config: DictConfig, steps: int) -> float:
    parts = prepared(config)
    network = Bare(dict(parts.data.sizes()), config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01)
    times, count = [], 0
    for step, batch in zip(range(steps), batches(parts.data.train_dataloader()), strict=False):
        loss = nn.functional.cross_entropy(network(batch.source, batch.lengths), batch.targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        times.append(time.perf_counter())
        count += len(batch.lengths) if step >= WARM_UP else 0
    return count / (times[-1] - times[WARM_UP - 1])


def packaged(config: DictConfig, steps: int) -> float:
    parts = prepared(config)
    stamp = Stamp()
    parts.trainer.callbacks.append(stamp)
    parts.trainer.fit(build_task(config, parts), datamodule=parts.data)
    taken = zip(range(steps), batches(parts.data.train_dataloader()), strict=False)
    count = sum(len(batch.lengths) for step, batch in taken if step >= WARM_UP)
    return count / (stamp.times[-1] - stamp.times[WARM_UP - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="of the configuration, as for train.py")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    rates: dict[str, list[float]] = {"bare": [], "packaged": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, measure in (("bare", bare), ("packaged", packaged)):
                rates[name].append(measure(configuration(folder, options.steps, options.overrides), options.steps))
    ratios = [p / b for p, b in zip(rates["packaged"], rates["bare"], strict=True)]
    print("\n| | sequences per second |\n|---|---|")
    print(f"| nn.LSTM, by hand | {statistics.median(rates['bare']):,.0f} |")
    print(f"| unrolled, default callbacks and loggers | {statistics.median(rates['packaged']):,.0f} |")
    print(f"| ratio, median of {options.rounds} rounds | {statistics.median(ratios):.2f} |")
    print(f"| ratio, each round | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |")


if __name__ == "__main__":
    main()
