"""Exported C beside onnxruntime and torch: code, weights, state, and microseconds for one step of one sequence.

    python benchmarks/export.py
    python benchmarks/export.py --cells GRUCell --hidden 128 --rounds 20

A step reads a frame of 40 features, runs one recurrent layer and predicts 10 classes. All is on one core, in one
process: the programs take turns, and each figure is the median over rounds. The code is what gcc makes of the
functions, without the weights and the C library. onnxruntime runs the graph of a step, with the states in and out.
"""

import argparse
import copy
import ctypes
import io
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import unrolled
from unrolled import Bundle, CategoricalHead, FeatureEncoder, Processor, Recurrent, SequenceTagger, SeriesScaler
from unrolled.deployment import export_c
from unrolled.state import leaves, rebuild

FEATURES, CLASSES = 40, 10
FLAGS = {"-Os": ["-Os"], "-O2": ["-O2"], "-O3 -march=native": ["-O3", "-march=native"]}
LOOP = """
#include "network.h"
void run(int steps, const float *inputs, float *outputs) {
  static network_state state;
  network_init(&state);
  for (int t = 0; t < steps; t++) network_step(&state, inputs, outputs);
}
"""


class Way(NamedTuple):
    """One way to run a network: its name, its sizes in bytes, and a function that runs some steps."""

    name: str
    code: str
    weights: str
    state: str
    run: Callable[[int], None]


def network_of(cell: str, hidden: int) -> SequenceTagger:
    core = partial(Recurrent, getattr(unrolled, cell), hidden_size=hidden)
    encoder = FeatureEncoder(FEATURES, core, bidirectional=False)
    return SequenceTagger(encoder, partial(CategoricalHead, num_classes=CLASSES)).eval()


def in_c(network: SequenceTagger, flags: list[str], folder: Path, *, int8: bool) -> Way:
    """Compile the network as a library."""
    scaler = SeriesScaler(["x"] * FEATURES, [0.0] * FEATURES, [1.0] * FEATURES)
    exported = export_c(Bundle(network, Processor(scaler), {}), int8=int8)
    exported.write(folder)
    (folder / "loop.c").write_text(LOOP)
    compile = ["gcc", "-std=c99", "-fPIC", *flags]
    subprocess.run([*compile, "-c", "network.c"], cwd=folder, check=True)
    subprocess.run([*compile, "-shared", "loop.c", "network.o", "-o", "network.so", "-lm"], cwd=folder, check=True)
    sections = subprocess.run(
        ["size", "-A", "network.o"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    code = sum(int(count) for count in re.findall(r"^\.text\S*\s+(\d+)", sections, re.MULTILINE))
    weights, state = re.findall(r"(?:weights|state) ([\d,]+) bytes", exported.notes[0])
    library = ctypes.CDLL(str(folder / "network.so"))
    inputs, outputs = (ctypes.c_float * FEATURES)(*[0.1] * FEATURES), (ctypes.c_float * CLASSES)()
    name = f"C, gcc {' '.join(flags)}{', 8-bit weights' if int8 else ''}"
    return Way(name, f"{code:,}", weights, state, lambda steps: library.run(steps, inputs, outputs))


def in_torch(network: SequenceTagger, name: str, backend: str) -> Way:
    """`network.step`, which reads the cell's own step with the backend "loop"."""
    network = copy.deepcopy(network)
    network.encoder.core.backend = backend  # pyright: ignore[reportAttributeAccessIssue]
    frame = torch.full((1, FEATURES), 0.1)

    def run(steps: int) -> None:
        state = network.initial_state(1)
        with torch.inference_mode():
            for _ in range(steps):
                _, state = network.step(frame, state)

    return Way(name, "", _bytes(list(network.parameters())), _bytes(leaves(network.initial_state(1))), run)


class _Step(nn.Module):
    """A step whose state is a list of tensors."""

    def __init__(self, network: SequenceTagger) -> None:
        super().__init__()
        self.network = network
        self.like = network.initial_state(1)

    def forward(self, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        outputs, after = self.network.step(frame, rebuild(self.like, list(state)))
        return outputs, *leaves(after)


def in_onnxruntime(network: SequenceTagger) -> Way | None:
    """The graph of a step; None without onnxruntime and onnxscript."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx needs it
    except ImportError:
        return None
    first, frame = leaves(network.initial_state(1)), torch.full((1, FEATURES), 0.1)
    program = torch.onnx.export(_Step(network).eval(), (frame, *first), dynamo=True, verbose=False)
    stored = io.BytesIO()
    if program is None:
        return None
    program.save(stored)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(stored.getvalue(), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(steps: int) -> None:
        state: list[Any] = [leaf.numpy() for leaf in first]
        read = frame.numpy()
        for _ in range(steps):
            _, *state = session.run(None, dict(zip(names, [read, *state], strict=True)))

    return Way("onnxruntime", "", _bytes(list(network.parameters())), _bytes(first), run)


def _bytes(tensors: list[Any]) -> str:
    return f"{sum(tensor.nbytes for tensor in tensors):,}"


def measure(ways: list[Way], rounds: int, seconds: float) -> list[float]:
    """The median microseconds of a step of each way; the ways take turns."""
    counts: list[int] = []
    for way in ways:
        way.run(100)
        began = time.perf_counter()
        way.run(100)
        counts.append(max(10, int(seconds * 100 / (time.perf_counter() - began))))
    took: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, count, times in zip(ways, counts, took, strict=True):
            began = time.perf_counter()
            way.run(count)
            times.append((time.perf_counter() - began) / count * 1e6)
    return [statistics.median(times) for times in took]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["LSTMCell", "GRUCell"])
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.05, help="of each round and way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| cell | program | code, bytes | weights, bytes | state, bytes | µs a step |")
    print("|---|---|---|---|---|---|")
    for cell in options.cells:
        torch.manual_seed(0)
        network = network_of(cell, options.hidden)
        with tempfile.TemporaryDirectory() as name:
            kinds = [(flags, int8) for flags in FLAGS.values() for int8 in (False, True)]
            folders = [Path(name) / str(number) for number in range(len(kinds))]
            pairs = zip(kinds, folders, strict=True)
            ways = [in_c(network, flags, folder, int8=int8) for (flags, int8), folder in pairs]
            graph = in_onnxruntime(network)
            ways += [] if graph is None else [graph]
            ways += [
                in_torch(network, "torch, `network.step`", "auto"),
                in_torch(network, "torch, eager cell", "loop"),
            ]
            for way, median in zip(ways, measure(ways, options.rounds, options.seconds), strict=True):
                print(f"| {cell} | {way.name} | {way.code} | {way.weights} | {way.state} | {median:.1f} |")


if __name__ == "__main__":
    main()
