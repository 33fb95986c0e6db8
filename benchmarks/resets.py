"""Reset marks: documents packed side by side in windows, beside windows without marks and a document per row.

Everything runs in one process, in turn, and what is printed is the ratio of medians of a training step. Lengths
of documents are geometric. A window of packed documents has no padding; a row that holds whole documents has.

    python benchmarks/resets.py --repeats 10
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from unrolled import GRUCell, LSTMCell, Recurrent
from unrolled.training.data.plans import StreamPlan

BATCH, TIME, HIDDEN = 32, 100, 256
MEANS = (25, 100, 500)
KINDS = [(LSTMCell, "loop"), (LSTMCell, "fused"), (LSTMCell, "compiled"), (LSTMCell, "auto"), (GRUCell, "auto")]


def medians(steps: list[Callable[[], None]], repeats: int) -> list[float]:
    """Median seconds of each step, taken in turn."""
    seconds: list[list[float]] = [[] for _ in steps]
    for repeat in range(repeats + 2):
        for step, taken in zip(steps, seconds, strict=True):
            start = time.perf_counter()
            step()
            if repeat >= 2:  # the first two warm up
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]


def useful_share(mean: int, *, concatenate: bool) -> float:
    """Share of a window's steps that are not padding."""
    lengths = np.maximum(1, np.random.default_rng(0).geometric(1 / mean, 200_000 // mean))
    plan = StreamPlan(lengths, rows=BATCH, window=TIME, concatenate=concatenate)
    windows = [plan.window_spec(0, index) for index in range(plan.num_batches)]
    return sum(int(w.lengths.sum()) for w in windows) / sum(BATCH * int(w.lengths.max()) for w in windows)


def row(cell: type, backend: str, repeats: int) -> list[str]:
    """Training step with marks ÷ without marks, for each mean length."""
    torch.manual_seed(0)
    network = Recurrent(cell, HIDDEN, HIDDEN, backend=backend)
    inputs = torch.randn(BATCH, TIME, HIDDEN)

    def step(resets: torch.Tensor | None) -> None:
        network.zero_grad()
        network(inputs, resets=resets)[0].square().mean().backward()

    marks = [torch.rand(BATCH, TIME, generator=torch.Generator().manual_seed(1)) < 1 / mean for mean in MEANS]
    plain, *marked = medians([lambda: step(None), *(lambda m=m: step(m) for m in marks)], repeats)
    return [f"{each / plain:.2f}" for each in marked]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="measured steps of each side (default: 10)")
    return parser.parse_args()


def main() -> None:
    torch.set_num_threads(1)
    repeats = arguments().repeats
    print(f"torch {torch.__version__}, {BATCH} × {TIME} steps, {HIDDEN} units, one thread, medians of {repeats}\n")
    print("| mean length of a document | " + " | ".join(map(str, MEANS)) + " |")
    print("|---" * (1 + len(MEANS)) + "|")
    for cell, backend in KINDS:
        print(f"| {cell.__name__}, {backend}: time ÷ without marks | {' | '.join(row(cell, backend, repeats))} |")
    for name, concatenate in (("packed", True), ("whole documents", False)):
        shares = [f"{useful_share(mean, concatenate=concatenate):.0%}" for mean in MEANS]
        print(f"| useful steps of a window, {name} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
