"""Training and scoring from a configuration."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from omegaconf import DictConfig

from unrolled.backends.speeds import SPEEDS
from unrolled.checkpoint import KEY, described, load_weights, read_checkpoint
from unrolled.descriptions import TRUSTED
from unrolled.layers.initialization import initialize
from unrolled.training.callbacks.loggers import MetricsFile, start_loggers
from unrolled.training.callbacks.pruning import is_pruned
from unrolled.training.configuration.launch import is_restarted, torchrun_id
from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.run import report
from unrolled.training.run.agreement import Agreement, joined
from unrolled.training.run.allocator import keep_freed_memory
from unrolled.training.run.assembly import (
    RunParts,
    assemble,
    build_task,
    check_network,
    check_processor,
    create_task,
    versions,
)
from unrolled.training.run.folder import lock_folder
from unrolled.training.run.instantiate import plain_values
from unrolled.training.run.job import flatten
from unrolled.training.run.processes import together
from unrolled.training.run.quiet import quiet
from unrolled.training.run.ranks import is_first
from unrolled.training.run.requeue import requeue_when_interrupted
from unrolled.training.run.resuming import check_same_data, data_settings, find_checkpoint, plan_as_before, resume_entry
from unrolled.training.run.sharded import ShardedStrategy
from unrolled.training.tasks.base import SequenceTask


def run(config: DictConfig) -> dict[str, float]:
    """Trains and tests a network and writes all results to the run's folder. Returns the test metrics.

    Raises:
        ValueError: a mistake in the configuration or the data, before training begins.
    """
    with quiet():
        return _run(config)


def _run(config: DictConfig) -> dict[str, float]:
    keep_freed_memory()
    config = joined(config)
    wanted = bool(config.get("requeue"))
    with requeue_when_interrupted(Path(config.run_dir), wanted=wanted, first=is_first()):
        return _run_composed(config)


def _run_composed(config: DictConfig) -> dict[str, float]:
    first = is_first()
    if first:
        _find_checkpoint(config)
        config.launch = torchrun_id()
    start = _load_checkpoint(config)
    parts = assemble(config, processor=start[KEY]["processor"] if start else None)
    check_network(config)

    resumed = Path(config.resume) if config.resume else None
    lock = lock_folder(Path(config.run_dir), resume=resumed) if first else nullcontext()
    with lock, together(config, parts.trainer):
        return _train(config, parts, start)


def _find_checkpoint(config: DictConfig) -> None:
    """Replaces `resume` by the path of a checkpoint, also if SLURM or torchrun has started the run again."""
    folder = Path(config.run_dir)
    own = config.resume == "auto" or is_restarted(folder)
    found = find_checkpoint("auto", folder) if own else None
    if found is not None:
        config.init_from = None  # which was for the start
    elif config.resume and config.resume != "auto":
        found = find_checkpoint(config.resume, folder)
    config.resume = None if found is None else str(found)


def _train(config: DictConfig, parts: RunParts, start: dict[str, Any] | None) -> dict[str, float]:
    start_loggers(parts.trainer)
    task, resumed = prepare_task(config, parts, start)
    if start is not None and resumed is not None and parts.trainer.is_global_zero:
        for logger in parts.trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.continue_from(start["global_step"], Path(config.resume).parents[1])
    with SPEEDS.run(resumed["backends"] if resumed else None, measures=parts.trainer.world_size == 1):
        return _fit(config, parts, task)


def prepare_task(
    config: DictConfig, parts: RunParts, start: dict[str, Any] | None = None
) -> tuple[SequenceTask, Mapping[str, Any] | None]:
    """Seeds the process, prepares the data, and builds the task with the weights that training starts from.

    Args:
        config: the configuration, whose sizes are set.
        parts: its parts.
        start: the checkpoint that is resumed, or whose weights are used; None for new weights.

    Returns:
        The task, and the state of a run that is resumed, or None.
    """
    seed_everything(config.seed, workers=True, verbose=False)
    parts.data.prepare()
    if start is not None:
        check_processor(config, parts.data, start[KEY]["processor"])
    config.sizes = parts.data.sizes()
    task = build_task(config, parts)
    resumed = resume_entry(start, config.resume) if start is not None and config.resume else None
    _place_data(config, parts, task, resumed)
    _set_weights(config, parts, task, start)
    torch.manual_seed(config.seed)  # after the weights; with several processes, the task adds their ranks
    return task, resumed


def _place_data(config: DictConfig, parts: RunParts, task: SequenceTask, resumed: Mapping[str, Any] | None) -> None:
    """Lets the data go on where a resumed run was."""
    planned = parts.trainer.world_size if resumed is None else plan_as_before(resumed, parts.data, parts.trainer)
    task.data_settings = data_settings(plain_values(config.data), parts.data, parts.trainer, planned)
    if resumed is not None:
        check_same_data(resumed["data_settings"], task.data_settings)


def _set_weights(config: DictConfig, parts: RunParts, task: SequenceTask, start: dict[str, Any] | None) -> None:
    initialize(task.network, config.initialization)
    # Lightning converts later, and would round the weights of a resumed run with precision=64-true to 32 bits before.
    parts.trainer.precision_plugin.convert_module(task)
    if start is None:
        task.load_pretrained()
    else:
        load_weights(task.network, start, config.resume or config.init_from)
    if config.compile:
        _compile(task, parts.trainer)


def _fit(config: DictConfig, parts: RunParts, task: SequenceTask) -> dict[str, float]:
    """Trains and tests a task, and reports."""
    folder = Path(config.run_dir)
    _expect_agreement(parts.trainer, flatten(config, resolve=True))
    if parts.trainer.is_global_zero:
        report.write_configuration(config, folder)
        report.print_overview(config, parts.data, task, parts.trainer)
    began = time.perf_counter()
    try:
        parts.trainer.fit(task, datamodule=parts.data, ckpt_path=config.resume, weights_only=True)
        seconds = time.perf_counter() - began
        numbers = _test(parts, task) if config.test and not is_pruned(parts.trainer) else {}
        if parts.trainer.is_global_zero:
            report.write_summary(config, folder, parts.data, parts.trainer, task, numbers, seconds)
    except (ValueError, OSError, RuntimeError) as error:
        # A run that has started keeps its folder and shows its traceback: `command` reads this attribute of its own.
        error.begun = task.fit_started and not isinstance(error, ConfigurationError)  # type: ignore[attr-defined]  # for command.py
        raise
    return numbers


def score(config: DictConfig) -> dict[str, float]:
    """Scores a trained network on any data, without training. Returns the metrics."""
    with quiet():
        return _score(config)


def _score(config: DictConfig) -> dict[str, float]:
    keep_freed_memory()
    config = joined(config)
    content = read_checkpoint(config.checkpoint)
    trusted = _trusted(config)
    _, network = (described(content, name, config.checkpoint, trusted) for name in ("processor", "network"))
    if config.seed is None:
        seed = content[KEY]["info"].get("seed", 1)
        config.seed = seed if isinstance(seed, int) else 1
    description = content[KEY]["network"]
    parts = assemble(config, processor=content[KEY]["processor"])
    load_weights(network, content, config.checkpoint)
    with together(config, parts.trainer):
        seed_everything(config.seed, workers=True, verbose=False)
        parts.data.prepare()
        check_processor(config, parts.data, content[KEY]["processor"])
        task = create_task(config, network=description, processor=parts.data.processor(), optimizer=None)
        task.network = network
        task.attach(parts.data)
        parts.data.evaluate_split(config.split)
        _expect_agreement(parts.trainer, flatten(config))
        with SPEEDS.run(measures=parts.trainer.world_size == 1):
            numbers = parts.trainer.test(task, datamodule=parts.data, verbose=False)[0]
        if parts.trainer.is_global_zero:
            report.print_scores(config, parts.data, task, numbers)
    return dict(numbers)


def _expect_agreement(trainer: Trainer, values: Mapping[str, Any]) -> None:
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
    callbacks.insert(0, Agreement(values, versions()))


def _compile(task: SequenceTask, trainer: Trainer) -> None:
    """Compiles the forward pass of the network with torch.compile, in place, so that names of weights stay."""
    if isinstance(trainer.strategy, ShardedStrategy):
        raise ConfigurationError(
            "compile=true: the parts of a sharded network (trainer=fsdp) are gathered by hooks between them, where a "
            "compiled network is interrupted; use one of the two"
        )
    task.network.compile()


def _load_checkpoint(config: DictConfig) -> dict[str, Any] | None:
    if config.resume and config.init_from:
        raise ConfigurationError("resume and init_from exclude each other: resume a run, or start a new one")
    path = config.resume or config.init_from
    if path is None:
        return None
    content = read_checkpoint(path)
    described(content, "processor", path, TRUSTED)  # checks the processor; the network comes from the configuration
    return content


def _trusted(config: DictConfig) -> tuple[str, ...]:
    return (*TRUSTED, *(f"{package.rstrip('.')}." for package in config.trusted))


def _test(parts: RunParts, task: SequenceTask) -> dict[str, float]:
    best = getattr(parts.trainer.checkpoint_callback, "best_model_path", "") or None
    results = parts.trainer.test(task, datamodule=parts.data, ckpt_path=best, verbose=False, weights_only=True)
    return dict(results[0]) if results else {}
