"""Several processes: what they gain, what a run costs beside its steps, and what larger clusters would give on paper.

    python benchmarks/scaling.py all            ranks, costs and measure, on a quiet machine: under ten minutes
    python benchmarks/scaling.py ranks          two ranks with a thread each beside one, at the same total batch
    python benchmarks/scaling.py costs          checkpoints, the guard against NaN, logging, torch.compile: ratios
    python benchmarks/scaling.py measure        step times of the tasks' reference sizes, written to scaling.json
    python benchmarks/scaling.py paper          docs/scaling.md's tables, from scaling.json

Sides of a ratio alternate. Every process has one thread. Parameters are counted from the experiments.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from omegaconf import DictConfig

from unrolled.descriptions import build
from unrolled.training.run import compose
from unrolled.training.run.allocator import keep_freed_memory
from unrolled.training.run.assembly import assemble, build_task
from unrolled.training.run.quiet import quiet

RECORD = Path(__file__).with_name("scaling.json")
WARM_UP = 4
# The reference of each task: an experiment, the sizes of its data, and what makes a step of its size without its data.
REFERENCES: dict[str, tuple[str, dict[str, int], list[str]]] = {
    "char_lm": (
        "char_lm/tiny_shakespeare",
        {"vocabulary": 67},
        ["model.hidden_size=512", "network.embedding.size=64", "data.batch_size=64", "data.window=128"],
    ),
    "translation": (
        "translation/multi30k_en_de",
        {"source_vocabulary": 5000, "vocabulary": 5000},
        ["attention=additive", "decoder=attentive", "model.hidden_size=320", "data.batch_tokens=2048"],
    ),
    "classification": (
        "classification/sst2",
        {"vocabulary": 15000, "classes": 2, "outputs": 2},
        ["experiment=classification/sst2", "data.files=FOLDER/sentences.jsonl"],
    ),
    "tagging": (
        "tagging/ud_english_ewt",
        {"vocabulary": 20000, "characters": 100, "outputs": 18},
        ["model.num_layers=2", "network.encoder.hidden_size=200", "network.encoder.num_layers=null"],
    ),
}
SMALL = {  # for two processes: a batch that two can share
    "char_lm": (["model.hidden_size=256", "data.window=64"], "data.batch_size", 32),
    "translation": (["model.hidden_size=128"], "data.batch_tokens", 2048),
    "classification": (["model.hidden_size=128"], "data.batch_size", 64),
    "captioning": (["model.hidden_size=128"], "data.batch_tokens", 512),
    "tagging": (["model.hidden_size=128"], "data.batch_size", 32),
}
COSTS: dict[str, tuple[list[str], list[str]]] = {  # with and without
    "last.ckpt after each step": (["callbacks.last.minutes=0"], []),
    "guard and norm of the gradient": (["callbacks/gradient_clip=measure"], ["callbacks/gradient_clip=none"]),
    "logging of every step": (
        ["trainer.log_every_n_steps=1"],
        ["logger=none", "callbacks.throughput=null", "callbacks.curves=null", "callbacks.progress=null"],
    ),
    "logging of every tenth step": (
        [],
        ["logger=none", "callbacks.throughput=null", "callbacks.curves=null", "callbacks.progress=null"],
    ),
    "throughput and waiting": ([], ["callbacks.throughput=null"]),
    "torch.compile": (["compile=true"], []),
}
# Bytes a second that a process sends in a ring, and seconds a message takes to begin: eight GPUs with NVLink 4 in a
# node, and one adapter of 400 Gbit/s for each GPU between nodes.
WITHIN, BETWEEN = (300e9, 3e-6), (50e9, 10e-6)
PROCESSES = (8, 16, 32, 64, 128, 256, 512, 1024)


class Stamp(Callback):
    """The times at which steps ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.times.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Median of the steps after the first ones."""
        later = self.times[WARM_UP:]
        return statistics.median(b - a for a, b in pairwise(later))

    @property
    def mean(self) -> float:
        return (self.times[-1] - self.times[WARM_UP]) / (len(self.times) - 1 - WARM_UP)


@contextmanager
def folder_with_text() -> Generator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        generator = torch.Generator().manual_seed(1)
        codes = torch.randint(0, 65, (300_000,), generator=generator) + 48
        (Path(folder) / "text.txt").write_text("".join(map(chr, codes.tolist())))
        words = torch.randint(0, 15000, (2000, 20), generator=generator).tolist()  # as long as a sentence of SST-2
        rows = [{"text": " ".join(f"w{word}" for word in row), "label": row[0] % 2} for row in words]
        (Path(folder) / "sentences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        yield Path(folder)


def configuration(task: str, folder: Path, steps: int, options: list[str]) -> DictConfig:
    given = [f"task={task}", *(["data=text", f"data.files={folder / 'text.txt'}"] if task == "char_lm" else [])]
    given += [f"run_dir={folder / 'run'}", "trainer.accelerator=cpu", f"trainer.max_steps={steps}", "test=false"]
    given += ["trainer.max_epochs=-1", "+trainer.limit_val_batches=0", "+trainer.num_sanity_val_steps=0"]
    given += ["+trainer.enable_progress_bar=false", "threads=1", "callbacks.samples=null"]
    if task in ("translation", "captioning"):
        given.append(f"data.cache={folder / 'cache'}")
    if not any(option.startswith("trainer.devices") for option in options):
        given.append("trainer.devices=1")
    return compose(*given, *(option.replace("FOLDER", str(folder)) for option in options))


def timed_run(task: str, folder: Path, steps: int, options: list[str]) -> tuple[Stamp, Any]:
    """Trains a task and returns the times of its steps, and the task."""
    config = configuration(task, folder, steps, options)
    with quiet():
        parts = assemble(config)
        parts.data.prepare()
        config.sizes = parts.data.sizes()
        stamp = Stamp()
        parts.trainer.callbacks.append(stamp)  # pyright: ignore
        module = build_task(config, parts)
        if config.get("compile"):
            module.network.compile()
        parts.trainer.fit(module, datamodule=parts.data)
    return stamp, module


def count(experiment: str, sizes: dict[str, int]) -> int:
    """Counts the parameters of an experiment's network, for sizes of its data."""
    given = [] if experiment.startswith("translation") else ["data.files=unread"]
    config = compose(f"experiment={experiment}", "run_dir=unused", *given)
    config.sizes = sizes
    with torch.device("meta"):
        network = build(plain(config.network))
    return sum(parameter.numel() for parameter in network.parameters())


def plain(node: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=True)


def measure(steps: int, *, note: str) -> None:
    """Measures a step of each reference and writes the record."""
    found: dict[str, Any] = {}
    with folder_with_text() as folder:
        for task, (experiment, sizes, options) in REFERENCES.items():
            stamp, _ = timed_run(task, folder, steps + WARM_UP + 1, [*options, "logger=none", "callbacks.curves=null"])
            found[task] = {"experiment": experiment, "parameters": count(experiment, sizes), "seconds": stamp.seconds}
            print(f"{task}: {found[task]['parameters']:,} parameters, {stamp.seconds:.3f} s a step", flush=True)
    machine = f"{platform.processor() or platform.machine()}, one thread, torch {torch.__version__}"
    RECORD.write_text(json.dumps({"machine": machine, "note": note, "tasks": found}, indent=2) + "\n")


def ring(size: float, processes: int) -> float:
    """Returns the seconds of a ring all-reduce (alpha-beta model): 2 (p − 1) messages of size / p."""
    bandwidth, latency = WITHIN if processes <= 8 else BETWEEN
    return 2 * (processes - 1) * (latency + size / processes / bandwidth)


def efficiency(step: float, communication: float, *, overlapped: bool) -> float:
    """Returns step ÷ (step + what is not hidden); the backward pass, two thirds of a step, can hide communication."""
    exposed = max(0.0, communication - 2 / 3 * step) if overlapped else communication
    return step / (step + exposed)


def paper(speedup: float) -> str:
    """Returns the tables of docs/scaling.md."""
    record = json.loads(RECORD.read_text())
    lines = [f"Step times: {record['machine']}; {record['note']}. A GPU is taken to be {speedup:g} times as fast.", ""]
    lines += [
        "| task | parameters | gradient, MB | step on one thread, s | assumed on a GPU, ms |",
        "|---|---|---|---|---|",
    ]
    for task, one in record["tasks"].items():
        size = 4 * one["parameters"] / 1e6
        step = 1e3 * one["seconds"] / speedup
        lines.append(f"| {task} | {one['parameters']:,} | {size:.1f} | {one['seconds']:.3f} | {step:.1f} |")
    lines += [
        "",
        f"| task, per cent | {' | '.join(map(str, PROCESSES))} | ≥ 80 % up to |",
        "|---" * (len(PROCESSES) + 2) + "|",
    ]
    for task, one in record["tasks"].items():
        step, size = one["seconds"] / speedup, 4 * one["parameters"]
        times = [ring(size, processes) for processes in PROCESSES]
        lines.append(f"| {task}: all-reduce, ms | {' | '.join(f'{1e3 * t:.2f}' for t in times)} | |")
        for overlapped, name in ((False, "nothing overlapped"), (True, "overlapped")):
            shares = [efficiency(step, each, overlapped=overlapped) for each in times]
            good = [p for p, share in zip(PROCESSES, shares, strict=True) if share >= 0.8]
            cells = " | ".join(f"{100 * share:.0f}" for share in shares)
            lines.append(f"| {task}: {name} | {cells} | {max(good) if good else '< 8'} |")
    return "\n".join(lines) + "\n"


def costs(rounds: int, steps: int, names: list[str]) -> None:
    """Prints the ratio of a step with something to one without it, alternating in one process."""
    print("| step of char_lm with ÷ without | median of ratios | each round |\n|---|---|---|")
    with folder_with_text() as folder:
        for name in names:
            ratios: list[float] = []
            for _ in range(rounds):
                pair = [
                    timed_run("char_lm", folder, steps, [*SMALL["char_lm"][0], *side])[0].mean for side in COSTS[name]
                ]
                ratios.append(pair[0] / pair[1])
            rows = ", ".join(f"{ratio:.3f}" for ratio in ratios)
            print(f"| {name} | {statistics.median(ratios):.3f} | {rows} |", flush=True)
    print("\nA checkpoint every N steps costs (its ratio − 1) / N.")


def ranks(rounds: int, steps: int, tasks: list[str]) -> None:
    """Prints the scaling efficiency of two ranks: time of one rank ÷ (2 × time of two), at the same total batch."""
    print("| task | one rank, s | two ranks, s | efficiency | each round |\n|---|---|---|---|---|")
    for task in tasks:
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for number in seconds:
                seconds[number].append(launched(task, number, steps))
        shares = [one / (2 * two) for one, two in zip(seconds[1], seconds[2], strict=True)]
        medians = [statistics.median(seconds[number]) for number in (1, 2)]
        rows = ", ".join(f"{share:.2f}" for share in shares)
        print(
            f"| {task} | {medians[0]:.3f} | {medians[1]:.3f} | {statistics.median(shares):.2f} | {rows} |", flush=True
        )


def launched(task: str, number: int, steps: int) -> float:
    """Returns the seconds of a step of a run with a number of ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "worker", "--tasks", task, "--steps", str(steps)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{task} with {number} ranks failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.rpartition("seconds ")[2])


def worker(task: str, steps: int) -> None:
    number = int(os.environ["WORLD_SIZE"])
    options, batch, total = SMALL[task]
    strategy = ["trainer=ddp", f"trainer.devices={number}"] if number > 1 else []
    with folder_with_text() as folder:
        quiet_options = ["logger=none", "callbacks.curves=null", "callbacks.progress=null", "callbacks.last=null"]
        given = [*options, *strategy, *quiet_options, f"{batch}={total // number}", "callbacks.checkpoint=null"]
        stamp, _ = timed_run(task, folder, steps + WARM_UP + 1, given)
    if os.environ["RANK"] == "0":
        print(f"seconds {stamp.mean}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("all", "ranks", "costs", "measure", "paper", "worker"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="measured steps of a run (default: 20, measure: 5)")
    parser.add_argument("--tasks", nargs="+", choices=SMALL, default=list(SMALL))
    parser.add_argument("--costs", nargs="+", choices=COSTS, default=list(COSTS))
    parser.add_argument("--note", default="measured on a quiet machine", help="kept with the step times")
    parser.add_argument("--speedup", type=float, default=100.0, help="of a GPU, an assumption of `paper`")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    steps: int = asked.steps or 20
    if asked.command == "worker":
        worker(asked.tasks[0], steps)
    if asked.command in ("all", "ranks"):
        ranks(asked.rounds, steps, asked.tasks)
    if asked.command in ("all", "costs"):
        costs(asked.rounds, steps + WARM_UP + 1, asked.costs)
    if asked.command in ("all", "measure"):
        measure(asked.steps or 5, note=asked.note)
    if asked.command in ("all", "paper"):
        if not math.isfinite(asked.speedup) or asked.speedup <= 0:
            parser.error(f"--speedup {asked.speedup}: expected a number above 0")
        print(paper(asked.speedup))


if __name__ == "__main__":
    main()
