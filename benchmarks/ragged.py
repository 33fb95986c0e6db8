"""Ragged batches: the fused backend beside torch.nn with packed sequences, one training step each.

Both run in one process, in turn, and what is printed is the ratio of their medians: absolute times don't travel from
machine to machine. Lengths are drawn evenly from a share of time to time: at 0.5 much as in a bucketed batch, at 0 as
in an unsorted one, half of whose steps are padding that packing skips. The plain column has no padding at all, on
either side: what our own path adds to torch's kernel.

    python benchmarks/ragged.py --threads 1 2 --repeats 30
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from unrolled import GRUCell, LSTMCell, Recurrent

SIZES = [(50, 50, 128), (100, 32, 256), (128, 64, 512), (1000, 16, 128)]  # time, batch, hidden
KINDS = {"LSTM": (LSTMCell, nn.LSTM), "GRU": (GRUCell, nn.GRU)}
Step = Callable[[], None]


def steps(kind: str, sizes: tuple[int, int, int], shortest: float | None) -> tuple[Step, Step]:
    """A training step of ours and one of torch's on the same inputs: forward, a loss, backward."""
    time_steps, batch, hidden = sizes
    cell, layer = KINDS[kind]
    ours, theirs = Recurrent(cell, hidden, hidden, backend="fused"), layer(hidden, hidden, batch_first=True)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch, time_steps, hidden, generator=generator, requires_grad=True)
    lengths = None
    if shortest is not None:
        lengths = torch.randint(max(1, int(shortest * time_steps)), time_steps + 1, (batch,), generator=generator)

    def packed() -> Tensor:
        if lengths is None:
            return theirs(inputs)[0]
        sequence = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(theirs(sequence)[0], batch_first=True, total_length=time_steps)[0]

    def step(run: Callable[[], Tensor]) -> None:
        inputs.grad = None
        run().square().mean().backward()

    return lambda: step(lambda: ours(inputs, lengths=lengths)[0]), lambda: step(packed)


def ratio(contenders: tuple[Step, Step], repeats: int) -> float:
    """Median seconds of the first over those of the second, taken in turn."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 2):
        for contender, taken in zip(contenders, seconds, strict=True):
            start = time.perf_counter()
            contender()
            if repeat >= 2:  # the first two warm up
                taken.append(time.perf_counter() - start)
    return statistics.median(seconds[0]) / statistics.median(seconds[1])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts (default: 1 2)")
    parser.add_argument("--repeats", type=int, default=20, help="measured steps of each side (default: 20)")
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="take only the first SIZES settings")
    parser.add_argument("--shortest", type=float, default=0.5, help="shortest length ÷ time (default: 0.5)")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    print(f"torch {torch.__version__}, float32, one training step, medians of {asked.repeats}: our time ÷ torch's")
    print(f"lengths from {asked.shortest} × time to time\n")
    print("| cell | time | batch | hidden | threads | ragged ÷ packed | plain ÷ plain |")
    print("|---|---|---|---|---|---|---|")
    for kind in KINDS:
        for sizes in SIZES[: asked.sizes]:
            for threads in asked.threads:
                torch.set_num_threads(threads)
                ragged, plain = (ratio(steps(kind, sizes, share), asked.repeats) for share in (asked.shortest, None))
                row = [kind, *map(str, sizes), str(threads), f"{ragged:.2f}", f"{plain:.2f}"]
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
