"""Memory of truncated backpropagation against the length of the text: it must not grow.

    python benchmarks/memory.py --characters 1000000

Trains a fixed number of steps on texts of 1, 10 and 100 times the length, each in a process of its own, and prints the
peak of its resident memory beyond what it had when training began.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_text(path: Path, characters: int) -> None:
    source = random.Random(1)
    words = ["".join(source.choices("etaoinshrdlu", k=source.randint(1, 9))) for _ in range(2000)]
    written = 0
    with path.open("w") as file:
        while written < characters:
            line = " ".join(source.choices(words, k=2000)) + "\n"
            file.write(line[: characters - written])
            written += len(line)


def train(path: str, steps: int) -> None:
    from unrolled.training.run import compose
    from unrolled.training.run.assembly import assemble, build_task

    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            "data=text",
            f"data.files={path}",
            f"data.cache={folder}/cache",
            f"run_dir={folder}",
            "trainer=cpu",
        ]
        overrides += [f"trainer.max_steps={steps}", "+trainer.limit_val_batches=0", "callbacks.progress=null"]
        config = compose(*overrides, "+trainer.enable_progress_bar=false")
        parts = assemble(config)
        parts.data.prepare()
        config.sizes = parts.data.sizes()
        task = build_task(config, parts)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        parts.trainer.fit(task, datamodule=parts.data)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"prepared": before / 1024, "peak": after / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=1_000_000, help="length of the shortest text")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file:
        train(options.file, options.steps)
        return
    print("| characters | after preparing, MiB | peak of training, MiB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for factor in (1, 10, 100):
            path = Path(folder) / "text.txt"
            write_text(path, factor * options.characters)
            command = [sys.executable, __file__, "--file", str(path), "--steps", str(options.steps)]
            lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
            found = json.loads(lines[-1])
            print(f"| {factor * options.characters:,} | {found['prepared']:.0f} | {found['peak']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
