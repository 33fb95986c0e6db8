"""What training through the package costs beside a bare PyTorch loop that does the same work with nn.LSTM.

    python benchmarks/throughput.py --steps 60 --rounds 5

Both read the same windows of the same text, run two LSTM layers, clip the gradient's norm and step AdamW; the package
does it through Lightning with its default callbacks and loggers. They alternate in one process; each figure is the
median over rounds of the characters per second between the warm-up step and the last.
"""

import argparse
import statistics
import sys
import tempfile
import time
from typing import Any

import torch
from lightning.pytorch import Callback
from omegaconf import DictConfig
from torch import nn

from unrolled.training.run import compose
from unrolled.training.run.allocator import keep_freed_memory
from unrolled.training.run.assembly import assemble, build_task

WARM_UP = 10


class Stamp(Callback):
    """The time when the warm-up and the last step were done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.times.append(time.perf_counter())


class Bare(nn.Module):
    """What one would write without any package."""

    def __init__(self, vocabulary: int, config: DictConfig) -> None:
        super().__init__()
        size, layers = config.model.hidden_size, config.model.num_layers
        self.embedding = nn.Embedding(vocabulary, config.network.embedding.size)
        self.lstm = nn.LSTM(config.network.embedding.size, size, layers, batch_first=True, dropout=config.model.dropout)
        self.dropout = nn.Dropout(config.network.output_dropout)
        self.output = nn.Linear(size, vocabulary)

    def forward(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        hidden, state = self.lstm(self.embedding(tokens), state)
        return self.output(self.dropout(hidden)), state


def configuration(folder: str, steps: int, extra: list[str]) -> DictConfig:
    overrides = [f"run_dir={folder}", "trainer=cpu", f"trainer.max_steps={steps}", "test=false", *extra]
    overrides += ["+trainer.limit_val_batches=0", "+trainer.num_sanity_val_steps=0", "trainer.max_epochs=-1"]
    return compose(*overrides)


def bare(config: DictConfig, steps: int) -> float:
    parts = assemble(config)
    parts.data.prepare()
    windows = iter(parts.data.train_dataloader())
    network = Bare(parts.data.sizes()["vocabulary"], config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01)
    state, times, count = None, [], 0
    for step in range(steps):
        window = next(windows)
        logits, state = network(window.inputs, state)
        state = (state[0].detach(), state[1].detach())
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), window.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        times.append(time.perf_counter())
        count += window.inputs.numel() if step >= WARM_UP else 0
    return count / (times[-1] - times[WARM_UP - 1])


def packaged(config: DictConfig, steps: int) -> float:
    parts = assemble(config)
    parts.data.prepare()
    config.sizes = parts.data.sizes()
    stamp = Stamp()
    parts.trainer.callbacks.append(stamp)
    parts.trainer.fit(build_task(config, parts), datamodule=parts.data)
    windows = iter(parts.data.train_dataloader())
    count = sum(next(windows).inputs.numel() for _ in range(steps)) // steps * (steps - WARM_UP)
    return count / (stamp.times[-1] - stamp.times[WARM_UP - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("overrides", nargs="*", help="of the configuration, as for train.py")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    rates: dict[str, list[float]] = {"bare": [], "packaged": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, measure in (("bare", bare), ("packaged", packaged)):
                # No random offset: both must read windows of one length.
                config = configuration(folder, options.steps, ["data.shift=false", *options.overrides])
                sys.stdout.flush()
                rates[name].append(measure(config, options.steps))
    ratios = [p / b for p, b in zip(rates["packaged"], rates["bare"], strict=True)]
    print("\n| | characters per second |\n|---|---|")
    print(f"| bare loop over nn.LSTM | {statistics.median(rates['bare']):,.0f} |")
    print(f"| unrolled, default callbacks and loggers | {statistics.median(rates['packaged']):,.0f} |")
    print(f"| ratio, median of {options.rounds} rounds | {statistics.median(ratios):.3f} |")
    print(f"| ratio, each round | {', '.join(f'{ratio:.3f}' for ratio in ratios)} |")


if __name__ == "__main__":
    main()
