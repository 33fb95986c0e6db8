"""Training of a composed configuration on rows in memory, which leaves nothing behind but the trained network."""

import copy
import signal
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from omegaconf import DictConfig

from unrolled.backends.speeds import SPEEDS
from unrolled.checkpoint import Bundle, load_bundle
from unrolled.training.estimators.isolation import isolated
from unrolled.training.estimators.observing import EpochBar, History
from unrolled.training.run.assembly import RunParts, assemble, check_network
from unrolled.training.run.composition import compose
from unrolled.training.run.runner import prepare_task
from unrolled.training.tasks.base import SequenceTask

Rows = Mapping[str, Sequence[Mapping[str, Any]]]

# Nothing is printed, logged or reported, and the last weights are no file: a fit returns the network alone.
_QUIET = (
    "logger=none",
    "test=false",
    "trainer.enable_progress_bar=false",
    *(f"callbacks.{name}=null" for name in ("last", "throughput", "progress", "samples", "curves")),
)


class Trained(NamedTuple):
    """The result of a training.

    Attributes:
        bundle: the network with the best weights, on the CPU.
        history: the metrics of each epoch.
        best_epoch: the epoch of the weights.
    """

    bundle: Bundle
    history: list[dict[str, float]]
    best_epoch: int


def train(
    overrides: Sequence[str],
    rows: Rows,
    *,
    seed: int,
    name: str,
    trusted: Sequence[str],
    shows_progress: bool = False,
    caches: bool = False,
) -> Trained:
    """Trains a network on rows in memory.

    Args:
        overrides: the configuration, as on a command line; `data` must be rows.
        rows: for each split that has its own, cells by column.
        seed: seed of all random numbers.
        name: name of what is trained, for the progress bar.
        trusted: packages of the user's own cells, besides those of `load_bundle`.
        shows_progress: show a bar over the epochs.
        caches: the data write what they prepare to a cache, which is removed with all other files.

    Raises:
        ValueError: a mistake in the configuration or the data.
        KeyboardInterrupt: the user has interrupted the training.
    """
    history = History()
    observers = [history, *([EpochBar(history, name)] if shows_progress else [])]
    with isolated(), TemporaryDirectory(prefix="unrolled-") as folder:
        config = copy.deepcopy(_composed(*_QUIET, *overrides))
        config.run_dir, config.seed = folder, seed
        given = {"rows": rows, **({"cache": f"{folder}/cache"} if caches else {})}
        parts = assemble(config, data_arguments=given, observers=observers)
        check_network(config)
        task, _ = prepare_task(config, parts)
        with SPEEDS.run(measures=False):  # measured choices could differ between two fits of the same data
            _fit(task, parts)
        path, best = _best(parts, history, config)
        return Trained(load_bundle(path, trusted=trusted), history.epochs, best)


@lru_cache(maxsize=64)
def _composed(*overrides: str) -> DictConfig:
    """Composes a configuration. Searches fit many times with the same one."""
    return compose(*overrides, "run_dir=unused")


def _fit(task: SequenceTask, parts: RunParts) -> None:
    try:
        parts.trainer.fit(task, datamodule=parts.data)
    except SystemExit as end:
        # The callback that completes the step after a signal exits with 128 + signal. The user's own handler gets it.
        number = int(end.code or 0) - 128
        if number > 0:
            signal.raise_signal(number)
        raise KeyboardInterrupt from None  # Lightning exits with 1 when it is interrupted before the first step


def _best(parts: RunParts, history: History, config: DictConfig) -> tuple[Path, int]:
    """Returns a checkpoint of the best weights and their epoch, or of the last ones if there was no validation."""
    path = getattr(parts.trainer.checkpoint_callback, "best_model_path", "")
    name = str(config.monitor.metric).replace("/", "_")
    if path:
        worst_first = sorted(history.epochs, key=lambda epoch: epoch[name], reverse=config.monitor.mode == "min")
        best = worst_first[-1][name]
        return Path(path), int(next(epoch["epoch"] for epoch in history.epochs if epoch[name] == best))
    last = Path(config.run_dir) / "last.ckpt"
    parts.trainer.save_checkpoint(last)
    return last, len(history.epochs)
