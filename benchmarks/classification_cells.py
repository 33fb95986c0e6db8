"""Cells beside one another on a classification: the same number of parameters, the same updates, several seeds.

    python benchmarks/classification_cells.py --parameters 30000 --seeds 3 --updates 600 data=digits

Hidden sizes are searched for, so that each network comes as close to the number of parameters as it can. A
feed-forward network reads the same batches, step by step without memory. Prints the mean and the standard deviation
over seeds of the test's accuracy.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from unrolled import build
from unrolled.training.run import compose
from unrolled.training.run.assembly import assemble
from unrolled.training.run.runner import run

MODELS = ("elman", "gru", "lstm", "feedforward")
QUIET = ("trainer=cpu", "logger=none", "callbacks.progress=null", "callbacks.curves=null", "callbacks.samples=null")


def configuration(folder: str, overrides: list[str]) -> DictConfig:
    given = ["task=classification", *QUIET, "+trainer.enable_progress_bar=false", f"run_dir={folder}"]
    return compose(*given, *overrides)


def parameters(config: DictConfig, sizes: dict[str, int], hidden: int) -> int:
    """How many a network of that hidden size has."""
    asked = config.copy()
    asked.sizes = sizes
    asked.model.hidden_size = hidden
    with torch.device("meta"):
        network: Any = build(OmegaConf.to_container(asked.network, resolve=True))
    return sum(parameter.numel() for parameter in network.parameters())


def hidden_size(config: DictConfig, sizes: dict[str, int], wanted: int) -> int:
    """The hidden size whose network comes closest to so many parameters."""
    low, high = 1, 2
    while parameters(config, sizes, high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(config, sizes, middle) < wanted else (low, middle)
    return min((low, high), key=lambda size: abs(parameters(config, sizes, size) - wanted))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=30000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=600, help="optimizer steps of each run")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="of the configuration, as for train.py")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| model | hidden size | parameters | accuracy, mean ± deviation | each seed |\n|---|---|---|---|---|")
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            given = ["encoder.frame.hidden_size=null", "encoder.token.hidden_size=null", "trainer.max_epochs=-1"]
            given += [f"trainer.max_steps={options.updates}", *options.overrides, f"model={model}"]
            data = assemble(configuration(folder, given)).data
            data.prepare()
            sizes = dict(data.sizes())
            config = configuration(folder, given)
            size = hidden_size(config, sizes, options.parameters)
            scores: list[float] = []
            for seed in range(1, options.seeds + 1):
                own = [f"model.hidden_size={size}", f"seed={seed}", f"run_dir={Path(folder) / str(seed)}"]
                with contextlib.redirect_stdout(io.StringIO()):
                    scores.append(100 * run(configuration(folder, [*given, *own]))["test/accuracy"])
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        each = ", ".join(f"{score:.1f}" for score in scores)
        count = parameters(config, sizes, size)
        print(f"| {model} | {size} | {count:,} | {statistics.mean(scores):.1f} ± {spread:.1f} | {each} |", flush=True)


if __name__ == "__main__":
    main()
