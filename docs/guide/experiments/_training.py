"""Training from an experiment: a command line of the guide, run in this process."""

import csv
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from unrolled import load_bundle
from unrolled.training import compose
from unrolled.training.run import run

QUIET = ["callbacks.progress=null", "+trainer.enable_progress_bar=false", "logger=csv"]
SAME = ["threads=1", "trainer.deterministic=true"]  # the same numbers on every machine with the same processor


class Trained(NamedTuple):
    """A finished run: its test metrics, the columns of its metrics.csv, and its best network, and samples."""

    metrics: dict[str, Any]
    columns: dict[str, list[tuple[int, float]]]
    bundle: Any
    samples: str

    def curve(self, metric: str) -> list[list[float]]:
        """Return the steps of a metric, and its values."""
        steps, values = zip(*self.columns[metric], strict=True)
        return [list(steps), list(values)]


def train(*overrides: str) -> Trained:
    """Train as `python train.py` does with these overrides, and read what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = run(compose(*QUIET, *SAME, *overrides, f"run_dir={folder}"))
        columns: dict[str, list[tuple[int, float]]] = {}
        with (Path(folder) / "metrics.csv").open() as opened:
            for row in csv.DictReader(opened):
                for name, value in row.items():
                    if value:
                        columns.setdefault(name, []).append((int(row["step"]) + 1, float(value)))
        best = Path(folder) / "checkpoints" / "best.ckpt"
        samples = (Path(folder) / "samples.md").read_text() if (Path(folder) / "samples.md").is_file() else ""
        return Trained(dict(metrics), columns, load_bundle(best) if best.is_file() else None, samples)


def relative_times(steps: Mapping[str, Callable[[], object]], *, rounds: int = 15) -> dict[str, float]:
    """Return how long each step takes, in units of the first one's time.

    The steps take turns in this process, so that what else the machine does slows all of them alike, and the median of
    each decides. The first round only warms up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: median(values[1:]) for name, values in seconds.items()}
    unit = next(iter(medians.values()))
    return {name: value / unit for name, value in medians.items()}
