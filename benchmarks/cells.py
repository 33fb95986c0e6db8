"""Cells beside one another on a task: the same number of parameters, the same updates or epochs, several seeds.

    python benchmarks/cells.py --parameters 30000 --seeds 3 --updates 600 task=classification data=digits
    python benchmarks/cells.py --parameters 250000 --models all --score test/loss experiment=music/jsb_chorales …

Hidden sizes are searched for, so that each network comes as close to the number of parameters as it can. A
feed-forward network reads the same batches, step by step without memory. Prints the mean and the standard deviation
over seeds of a score of the test.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from unrolled import build
from unrolled.training.configuration.overrides import config_folder
from unrolled.training.run import compose
from unrolled.training.run.assembly import assemble
from unrolled.training.run.runner import run

MODELS = ("elman", "gru", "lstm", "feedforward")
# A task sets these, or leaves them to the model.
SIZES = (
    "network.hidden_size",
    "encoder.frame.hidden_size",
    "encoder.token.hidden_size",
)
QUIET = ("trainer=cpu", "logger=none", "callbacks.progress=null", "callbacks.curves=null", "callbacks.samples=null")


def configuration(folder: str, overrides: list[str]) -> DictConfig:
    config = compose(*QUIET, "+trainer.enable_progress_bar=false", f"run_dir={folder}", *overrides)
    for size in SIZES:
        if OmegaConf.select(config, size) is not None:
            OmegaConf.update(config, size, None)
    return config


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
    low, high = 4, 8  # some cells divide their units into groups
    while parameters(config, sizes, high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(config, sizes, middle) < wanted else (low, middle)
    return min((low, high), key=lambda size: abs(parameters(config, sizes, size) - wanted))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=30000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, help="optimizer steps of each run, instead of the epochs of the task")
    parser.add_argument("--models", nargs="+", default=MODELS, help="names of conf/model, or all")
    parser.add_argument("--score", default="test/accuracy", help="accuracies are printed in percent")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="of the configuration, as for train.py")
    options = parser.parse_intermixed_args()
    if list(options.models) == ["all"]:
        options.models = sorted(path.stem for path in (config_folder() / "model").glob("*.yaml"))
    return options


def scores(model: str, options: argparse.Namespace) -> tuple[int, int, list[float]]:
    """The hidden size of a model, its parameters, and the score of each seed."""
    with tempfile.TemporaryDirectory() as folder:
        given = [*options.overrides, f"model={model}"]
        given += [] if options.updates is None else [f"trainer.max_steps={options.updates}", "trainer.max_epochs=-1"]
        config = configuration(folder, given)
        data = assemble(config).data
        data.prepare()
        sizes = dict(data.sizes())
        size = hidden_size(config, sizes, options.parameters)
        found: list[float] = []
        for seed in range(1, options.seeds + 1):
            own = [f"model.hidden_size={size}", f"seed={seed}", f"run_dir={Path(folder) / str(seed)}"]
            with contextlib.redirect_stdout(io.StringIO()):
                found.append(run(configuration(folder, [*given, *own]))[options.score])
        return size, parameters(config, sizes, size), found


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    percent = options.score.endswith("accuracy")
    factor, digits = (100, 1) if percent else (1, 3)
    print(f"| model | hidden size | parameters | {options.score}, mean ± deviation | each seed | minutes |")
    print("|---|---|---|---|---|---|")
    for model in options.models:
        begin = time.process_time()
        size, count, found = scores(model, options)
        values = [factor * score for score in found]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        each = ", ".join(f"{value:.{digits}f}" for value in values)
        mean = f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"
        minutes = (time.process_time() - begin) / 60 / len(values)
        print(f"| {model} | {size} | {count:,} | {mean} | {each} | {minutes:.1f} |", flush=True)


if __name__ == "__main__":
    main()
