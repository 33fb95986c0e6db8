"""Writes checkpoints in processes that are killed meanwhile, for test_durable: FOLDER and the number of kills."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from unrolled.checkpoint import load_tensors, save_tensors


def write(path: Path, first: int, pipe: int) -> None:
    """Writes one number after the other, and says so when it is on the disk."""
    for number in range(first, first + 100_000):
        save_tensors({"number": number, "weights": torch.full((200_000,), float(number))}, path)
        os.write(pipe, f"{number}\n".encode())


def main(folder: Path, kills: int) -> None:
    torch.set_num_threads(1)
    draw, path, number = random.Random(0), folder / "last.ckpt", 0
    for _ in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            write(path, number + 1, writing)
        os.close(writing)
        os.read(reading, 1)  # the first one is there
        time.sleep(draw.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told = b""
        while block := os.read(reading, 1 << 16):
            told += block
        os.close(reading)
        acknowledged = [int(line) for line in told.decode().split("\n")[1:-1]]
        content = load_tensors(path)
        assert torch.equal(content["weights"], torch.full((200_000,), float(content["number"])))
        assert content["number"] >= max(acknowledged, default=number + 1), "what was said to be written was lost"
        number = content["number"]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
