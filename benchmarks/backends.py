"""Whole trainings by backend: characters per second of task=char_lm, with all that a run does beside its network.

    python benchmarks/backends.py --models gru elman --backends loop fused auto

The backends take turns in one process; each figure is the median over rounds, between the warm-up and the last step.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback

from unrolled.training.run import compose
from unrolled.training.run.allocator import keep_freed_memory
from unrolled.training.run.assembly import assemble, build_task

WARM_UP = 4
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


class Stamp(Callback):
    """The time behind each step."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.times.append(self.clock())


def rate(folder: str, overrides: list[str], steps: int, clock: Callable[[], float]) -> float:
    """Characters per second of one short training."""
    given = [f"run_dir={folder}", "trainer=cpu", f"trainer.max_steps={steps}", "test=false", "data.shift=false"]
    given += ["+trainer.limit_val_batches=0", "+trainer.num_sanity_val_steps=0", "trainer.max_epochs=-1"]
    config = compose(*given, "callbacks.progress=null", "+trainer.enable_progress_bar=false", *overrides)
    parts = assemble(config)
    parts.data.prepare()
    config.sizes = parts.data.sizes()
    stamp = Stamp(clock)
    parts.trainer.callbacks.append(stamp)
    parts.trainer.fit(build_task(config, parts), datamodule=parts.data)
    windows = iter(parts.data.train_dataloader())
    count = sum(next(windows).inputs.numel() for _ in range(steps)) / steps * (steps - WARM_UP)
    return count / (stamp.times[-1] - stamp.times[WARM_UP - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["gru", "elman"])
    parser.add_argument("--backends", nargs="+", default=["loop", "fused", "auto"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="processor: for one thread on a busy machine")
    parser.add_argument("overrides", nargs="*", help="of the configuration, as for train.py")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in asked.models:
            rates: dict[str, list[float]] = {backend: [] for backend in asked.backends}
            for _ in range(asked.rounds):
                for backend, found in rates.items():
                    overrides = [f"model={model}", f"model.backend={backend}", *asked.overrides]
                    found.append(rate(folder, overrides, asked.steps, CLOCKS[asked.clock]))
            medians = {backend: statistics.median(found) for backend, found in rates.items()}
            first = medians[asked.backends[0]]
            lines += [f"| {model} | {name} | {m:,.0f} | {m / first:.2f} |" for name, m in medians.items()]
    print(f"\n{asked.threads} threads, {asked.clock} clock\n")
    print(f"| model | backend | characters per second | ÷ {asked.backends[0]} |\n|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
