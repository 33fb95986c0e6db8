"""How far `auto` is from the faster kernel of an LSTM: its short measurement beside whole calls, in turn, one process.

    python benchmarks/auto.py --threads 1
    python benchmarks/auto.py --threads 2

Loss is the time of the kernel that `auto` takes, divided by that of the faster one.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from unrolled import LSTMCell, Recurrent
from unrolled.backends import BACKENDS
from unrolled.backends.speeds import MARGIN, CallClass, measure
from unrolled.training.run.allocator import keep_freed_memory

# training?, input size, hidden size, batch, steps
CALLS = [
    (True, 32, 32, 8, 100),
    (True, 32, 32, 8, 400),
    (True, 128, 128, 32, 100),
    (True, 128, 128, 64, 400),
    (True, 128, 128, 16, 1000),
    (True, 64, 512, 64, 128),
    (True, 512, 512, 64, 128),
    (True, 512, 512, 32, 256),
    (True, 256, 256, 1, 400),
    (True, 256, 256, 64, 100),
    (False, 32, 32, 8, 400),
    (False, 128, 128, 1, 400),
    (False, 256, 256, 32, 200),
    (False, 512, 512, 32, 128),
]
NAMES = ("fused", "compiled")


def call(backend: str, inputs: torch.Tensor, hidden: int, *, training: bool) -> Callable[[], None]:
    """A pass through a layer, with gradients in training."""
    layer = Recurrent(LSTMCell, inputs.shape[2], hidden, backend=backend)

    def run() -> None:
        with torch.set_grad_enabled(training):
            outputs, _ = layer(inputs)
        if training:
            torch.autograd.grad(outputs.square().mean(), [inputs, *layer.parameters()])

    return run


def medians(runs: list[Callable[[], None]], seconds: float) -> list[float]:
    """The median seconds of calls that alternate, without the first of each."""
    took: list[list[float]] = [[] for _ in runs]
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(took[0]) < 4:
        for run, times in zip(runs, took, strict=True):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return [statistics.median(times[1:]) for times in took]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="of whole calls, for each line")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()

    losses: list[float] = []
    print(
        "| call | compiled ÷ fused, measured | whole calls | taken | loss | measured in, s |\n|---|---|---|---|---|---|"
    )
    for training, size, hidden, batch, steps in CALLS:
        inputs = torch.randn(batch, steps, size, requires_grad=training)
        with torch.set_grad_enabled(training):
            kind = CallClass.of(LSTMCell(size, hidden), inputs)
        began = time.perf_counter()
        fused, compiled = measure(kind, BACKENDS["fused"], BACKENDS["compiled"])
        lasted = time.perf_counter() - began
        whole = medians([call(name, inputs, hidden, training=training) for name in NAMES], asked.seconds)
        taken = int(compiled < MARGIN * fused)
        losses.append(whole[taken] / min(whole))
        ratios = f"{compiled / fused:.3f} | {whole[1] / whole[0]:.3f}"
        print(f"| {kind} | {ratios} | {NAMES[taken]} | {losses[-1]:.3f} | {lasted:.2f} |", flush=True)
    print(f"\nlargest loss {max(losses):.3f}, mean {statistics.mean(losses):.3f}")


if __name__ == "__main__":
    main()
