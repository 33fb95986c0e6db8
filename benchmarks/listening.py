"""How long a classifier of sound takes for a second of it: a recording as a whole, and as its samples arrive.

    python benchmarks/listening.py --whole whole.ckpt --streaming streaming.ckpt one.wav two.wav …

The real-time factor is the time spent divided by the recordings' duration, on one thread, features included, files read
before. A whole recording is classified by itself, as when somebody has just spoken; arriving samples come in pieces of
`--piece` seconds, and each piece is answered.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from unrolled import Bundle, load_bundle
from unrolled.deployment import Session, classify
from unrolled.processing.audio.recordings import Recording, read_recording


def whole(bundle: Bundle, recordings: list[Recording]) -> None:
    for recording in recordings:
        next(classify(bundle, [(recording.samples, recording.rate)]))


def streaming(bundle: Bundle, recordings: list[Recording], piece: float) -> None:
    for recording in recordings:
        listener = Session(bundle, rate=recording.rate)
        for samples in recording.samples.split(round(piece * recording.rate)):
            listener.feed(samples)
        listener.finish()


def factor(measured: Callable[[], None], seconds: float, rounds: int) -> float:
    measured()
    times: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        measured()
        times.append(time.perf_counter() - began)
    return statistics.median(times) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", help="a checkpoint of any classifier of sound")
    parser.add_argument("--streaming", help="one that reads forwards, on features that need nothing later")
    parser.add_argument("--piece", type=float, default=0.02, help="seconds of sound that arrive at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("files", nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recordings = [read_recording(file) for file in options.files]
    seconds = sum(len(recording.samples) / recording.rate for recording in recordings)
    print(f"{len(recordings)} recordings, {seconds:.1f} seconds of sound\n")
    print("| | parameters | real-time factor |\n|---|---|---|")
    for name, path in (("whole", options.whole), ("streaming", options.streaming)):
        if path is None:
            continue
        bundle = load_bundle(path)
        count = sum(parameter.numel() for parameter in bundle.network.parameters())
        if name == "whole":
            found = factor(lambda b=bundle: whole(b, recordings), seconds, options.rounds)
        else:
            found = factor(lambda b=bundle: streaming(b, recordings, options.piece), seconds, options.rounds)
        print(f"| {name} | {count:,} | {found:.4f} |", flush=True)


if __name__ == "__main__":
    main()
