"""Every pointwise cell beside torch.nn: training steps and inference, one process, in turn, medians and their ratios.

    python benchmarks/recurrent.py --threads 1 2 --repeats 15
    python benchmarks/recurrent.py --sizes 2 --layers 2 --record recurrent.jsonl     a piece at a time
    python benchmarks/recurrent.py --tables recurrent.jsonl                          and all pieces as tables
    python benchmarks/recurrent.py --models coupled_lstm mogrifier_lstm --backends auto    those of conf/model instead

Times are divided by that of an unpacked nn.LSTM of the same sizes, which on a CPU is oneDNN's kernel, the fastest that
torch has; in brackets by torch's own layer for the same cell. The allocator keeps what is freed, so that no side pays
for page faults (--default-allocator leaves it as it is). On a busy machine `--clock processor` counts the process's own
time instead of the clock's; use it with one thread only, since threads that wait are counted too.

The share is what a training step's products would take at the machine's best rate for a large product, divided by what
the step takes. With --mixed all run under autocast to bfloat16, but the rate is that of float32.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import unrolled
from unrolled import Recurrent
from unrolled.backends import BACKENDS
from unrolled.training.configuration.overrides import config_folder
from unrolled.training.run.allocator import keep_freed_memory

SIZES = [(50, 50, 128), (100, 32, 256), (128, 64, 512), (1000, 16, 128)]  # time, batch, hidden
TORCH = {"LSTMCell": nn.LSTM, "GRUCell": nn.GRU, "ElmanCell": nn.RNN}
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
Run = Callable[[], None]
Forward = Callable[[], Tensor]


def cells(backend: str) -> dict[str, Any]:
    """All cells of the package that need no options and that a backend takes; of auto, those that torch has too."""
    found: dict[str, Any] = {}
    for name in unrolled.__all__:
        cell = getattr(unrolled, name)
        if not name.endswith("Cell") or getattr(cell, "__abstractmethods__", None):
            continue
        if name in TORCH if backend == "auto" else BACKENDS[backend].refuses(cell(2, 8), torch.zeros(1, 1, 2)) is None:
            found[name] = cell
    return found


def models(names: list[str]) -> dict[str, Any]:
    """By the names of their files in conf/model, with the options that stand there: partial `Recurrent`s."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return {name: instantiate(compose(f"model/{name}")["model"]) for name in names}


class Setting:
    """Inputs of one size, and who runs on them."""

    def __init__(self, sizes: tuple[int, int, int], asked: argparse.Namespace) -> None:
        self.time, batch, self.hidden = sizes
        self.layers, self.bidirectional, self.mixed = asked.layers, asked.bidirectional, asked.mixed
        shortest: float | None = asked.shortest
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(batch, self.time, self.hidden, generator=generator, requires_grad=True)
        self.lengths = None
        if shortest is not None:
            first = max(1, int(shortest * self.time))
            self.lengths = torch.randint(first, self.time + 1, (batch,), generator=generator)

    def ours(self, core: Callable[..., Recurrent], backend: str) -> Forward:
        options: dict[str, Any] = {"bidirectional": self.bidirectional, "backend": backend, "dropout": 0.0}
        network = core(input_size=self.hidden, hidden_size=self.hidden, num_layers=self.layers, **options)
        return lambda: network(self.inputs, lengths=self.lengths)[0]

    def theirs(self, layer: Any) -> Forward:
        network = layer(self.hidden, self.hidden, self.layers, batch_first=True, bidirectional=self.bidirectional)
        if self.lengths is None:
            return lambda: network(self.inputs)[0]

        def packed() -> Tensor:
            sequence = pack_padded_sequence(self.inputs, self.lengths, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(network(sequence)[0], batch_first=True, total_length=self.time)[0]

        return packed

    def training(self, forward: Forward) -> Run:
        def step() -> None:
            self.inputs.grad = None
            with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
                outputs = forward()
            outputs.float().square().mean().backward()

        return step

    def inference(self, forward: Forward) -> Run:
        def step() -> None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
                forward()

        return step

    def products(self) -> float:
        """Floating-point operations of the products of an LSTM's training step: three times those of its forward."""
        directions = 1 + self.bidirectional
        widths = [self.hidden] + [self.hidden * directions] * (self.layers - 1)
        steps = self.inputs.shape[0] * (self.time if self.lengths is None else self.lengths.float().mean().item())
        return sum(3 * 2 * steps * 4 * self.hidden * (width + self.hidden) * directions for width in widths)


def medians(runs: list[Run], repeats: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of each, taken in turn; the first two rounds warm up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats + 2):
        for run, taken in zip(runs, seconds, strict=True):
            start = clock()
            run()
            if repeat >= 2:
                taken.append(clock() - start)
    return [statistics.median(taken) for taken in seconds]


def best_rate(clock: Callable[[], float]) -> float:
    """Floating-point operations a second of a large product, by the faster of torch's two libraries."""
    left, size = torch.randn(1536, 1536), 1536
    linear = nn.Linear(size, size, bias=False).eval()
    runs: list[Run] = [lambda: linear(left)]
    if torch.backends.mkldnn.is_available():
        from torch.utils.mkldnn import to_mkldnn

        fast, dense = to_mkldnn(linear), left.to_mkldnn()
        runs.append(lambda: fast(dense))
    with torch.no_grad():
        return 2 * size**3 / min(medians(runs, 9, clock))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=11, help="measured rounds (default: 11)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 1, 2, 3], help="which settings")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--bidirectional", action="store_true")
    parser.add_argument("--shortest", type=float, help="ragged: shortest length ÷ time, beside packed torch.nn")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--cells", nargs="+", help="only these")
    chosen.add_argument("--models", nargs="+", help="these of conf/model, with their options, instead of cells")
    parser.add_argument("--backends", nargs="+", default=["compiled"], help="compiled, auto, fused, loop")
    parser.add_argument("--mixed", action="store_true", help="under autocast to bfloat16")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--default-allocator", action="store_true")
    parser.add_argument("--record", type=Path, help="append what is measured to this file, one JSON object a line")
    parser.add_argument("--tables", type=Path, nargs="+", help="measure nothing, print what these files hold")
    return parser.parse_args()


def measure(setting: Setting, asked: argparse.Namespace, common: dict[str, Any]) -> list[dict[str, Any]]:
    """A record for each contender: its name, conditions, seconds of training and of inference."""
    clock = CLOCKS[asked.clock]
    contenders = {f"nn.{layer.__name__}": setting.theirs(layer) for layer in TORCH.values()}
    for backend in asked.backends:
        if asked.models:
            found = models(asked.models)
        else:
            named = {name: cell for name, cell in cells(backend).items() if not asked.cells or name in asked.cells}
            found = {name: partial(Recurrent, cell) for name, cell in named.items()}
        contenders |= {f"{name}, {backend}": setting.ours(core, backend) for name, core in found.items()}
    training, inference = (
        dict(zip(contenders, medians([make(f) for f in contenders.values()], asked.repeats, clock), strict=True))
        for make in (setting.training, setting.inference)
    )
    common = {**common, "sizes": [setting.time, setting.inputs.shape[0], setting.hidden], "work": setting.products()}
    return [{**common, "name": name, "seconds": [training[name], inference[name]]} for name in contenders]


def tables(records: list[dict[str, Any]]) -> str:
    """A table for each kind of run: a row for each contender, a column for each size."""
    kinds: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for record in records:
        kind = f"{record['threads']} threads, {record['layers']} layers, {record['directions']} directions"
        kind += f", lengths from {record['shortest']} × T, torch.nn packed" if record["shortest"] is not None else ""
        kind += ", autocast to bfloat16" if record["mixed"] else ""
        size = "T {}, B {}, H {}".format(*record["sizes"])
        kinds.setdefault(kind, {}).setdefault(size, {})[record["name"]] = record
    return "\n\n".join(table(kind, sizes) for kind, sizes in kinds.items())


def table(kind: str, sizes: dict[str, dict[str, dict[str, Any]]]) -> str:
    first = next(iter(next(iter(sizes.values())).values()))
    names = list(dict.fromkeys(name for records in sizes.values() for name in records))
    lines = [
        f"{kind}; {first['clock']} clock, medians of {first['repeats']}",
        "",
        f"| training, inference ÷ nn.LSTM (÷ torch's own) | {' | '.join(sizes)} |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    lines += [f"| {name} | {' | '.join(cell(name, records) for records in sizes.values())} |" for name in names]
    means = [mean(records) for records in sizes.values()]
    if any(means):
        lines.append(f"| geometric mean of the compiled cells | {' | '.join(means)} |")
    return "\n".join(lines)


def cell(name: str, records: dict[str, dict[str, Any]]) -> str:
    if name not in records:
        return ""
    record, reference = records[name], records["nn.LSTM"]
    share = f"{100 * record['work'] / record['rate'] / record['seconds'][0]:.0f} %"
    if name == "nn.LSTM":
        return "{:.1f}, {:.1f} ms; {}".format(*(1000 * s for s in record["seconds"]), share)
    text = ratios(record, reference)
    own = TORCH.get(name.split(",")[0])
    if own is nn.LSTM:
        return f"{text}; {share}"
    return f"{text} ({ratios(record, records[f'nn.{own.__name__}'])})" if own is not None else text


def ratios(record: dict[str, Any], reference: dict[str, Any]) -> str:
    return ", ".join(f"{a / b:.2f}" for a, b in zip(record["seconds"], reference["seconds"], strict=True))


def mean(records: dict[str, dict[str, Any]]) -> str:
    compiled = [record["seconds"] for name, record in records.items() if name.endswith(", compiled")]
    if not compiled:
        return ""
    reference = records["nn.LSTM"]["seconds"]
    logs = [[math.log(s / r) for s, r in zip(seconds, reference, strict=True)] for seconds in compiled]
    return ", ".join(f"{math.exp(statistics.mean(column)):.2f}" for column in zip(*logs, strict=True))


def main() -> None:
    asked = arguments()
    if asked.tables:
        print(tables([json.loads(line) for file in asked.tables for line in file.read_text().splitlines()]))
        return
    kept = not asked.default_allocator and keep_freed_memory()
    print(f"torch {torch.__version__}, float32, freed memory kept: {kept}")
    records: list[dict[str, Any]] = []
    for threads in asked.threads:
        torch.set_num_threads(threads)
        common = {name: getattr(asked, name) for name in ("layers", "shortest", "mixed", "clock", "repeats")}
        common |= {"threads": threads, "directions": 1 + asked.bidirectional, "rate": best_rate(CLOCKS[asked.clock])}
        print(f"{threads} threads: large product {common['rate'] / 1e9:.0f} GFLOP/s", flush=True)
        for index in asked.sizes:
            records += (found := measure(Setting(SIZES[index], asked), asked, common))
            if asked.record is not None:
                with asked.record.open("a") as file:
                    file.writelines(json.dumps(record) + "\n" for record in found)
    print(f"\n{tables(records)}")


if __name__ == "__main__":
    main()
