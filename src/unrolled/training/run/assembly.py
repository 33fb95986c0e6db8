"""The parts of a run: data, Trainer, optimizer, schedule and task."""

import inspect
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer

import unrolled
from unrolled.descriptions import locate
from unrolled.layers.initialization import initialize
from unrolled.training.callbacks.threads import Threads
from unrolled.training.configuration.options import ConfigurationError, check_options
from unrolled.training.data.base import SequenceData
from unrolled.training.run.instantiate import instantiate, plain_values
from unrolled.training.run.monitors import MonitorCheck, check_monitors
from unrolled.training.run.study import pruning_of_job
from unrolled.training.run.trainer import create_trainer
from unrolled.training.run.updates import Updates
from unrolled.training.tasks.base import SequenceTask
from unrolled.training.tasks.schedules import Schedule


class RunParts(NamedTuple):
    """The parts of a run that can be built before the data are read."""

    data: SequenceData
    trainer: Trainer
    optimizer: Callable[[Iterable[Any]], Optimizer] | None  # None in an evaluation
    schedule: Schedule | None


def assemble(
    config: DictConfig,
    *,
    processor: Mapping[str, Any] | None = None,
    data_arguments: Mapping[str, Any] | None = None,
    observers: Sequence[Callback] | None = None,
) -> RunParts:
    """Builds data, Trainer, optimizer and schedule. Errors name the place in the configuration.

    Args:
        config: the configuration.
        processor: the processor of a trained network, for data that take one.
        data_arguments: further arguments of the data, which no configuration can give, such as rows in memory.
        observers: callbacks beside those of the configuration; None for those that print.
    """
    check_options(config)
    callbacks = [instantiate(config, f"callbacks.{name}") for name in config.get("callbacks") or {}]
    loggers = [instantiate(config, f"logger.{name}") for name in config.get("logger") or {}]
    optimizer = instantiate(config, "optimizer")
    if optimizer is not None:
        _check_optimizer(optimizer, config.optimizer)
    given = {} if processor is None or not _takes_processor(config) else {"processor_from": processor}
    data = instantiate(config, "data", **given, **(data_arguments or {}))
    try:
        threads = Threads(config.get("threads"))
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    schedule = instantiate(config, "scheduler")
    fresh = not (config.get("resume") or config.get("init_from"))
    wanted: list[Callback] = [
        threads,
        *([Updates(data, fresh=fresh)] if observers is None else observers),
        MonitorCheck(schedule),
        *pruning_of_job(config),
        *(callback for callback in callbacks if callback),
    ]
    trainer = create_trainer(config, wanted, [logger for logger in loggers if logger])
    check_monitors(trainer, schedule)
    return RunParts(data, trainer, optimizer, schedule)


def check_network(config: DictConfig) -> None:
    """Builds the network on the meta device with placeholder sizes, so that wrong values are found early."""
    sizes = set(re.findall(r"\$\{sizes\.(\w+)\}", OmegaConf.to_yaml(config)))
    trial = config.copy()
    trial.sizes = dict.fromkeys(sizes, 8)
    with torch.device("meta"):
        instantiate(trial, "network")
    signature = inspect.signature(_task_class(config))
    wrong = [name for name in _arguments(config.task) if name not in signature.parameters]
    if wrong:
        raise ConfigurationError(f"task.{wrong[0]}: {config.task._target_} takes {', '.join(signature.parameters)}")
    if config.initialization != "default":
        initialize(torch.nn.Linear(2, 2), config.initialization)


def build_task(config: DictConfig, parts: RunParts) -> SequenceTask:
    """Builds the task and its network, with the sizes of the data."""
    network = plain_values(config.network)
    processor = parts.data.processor()
    task = create_task(config, network=network, processor=processor, optimizer=parts.optimizer, schedule=parts.schedule)
    task.info = {"versions": versions(), "seed": int(config.seed), "data": parts.data.describe()}
    task.info["choices"] = dict(config.get("choices") or {})
    task.attach(parts.data)
    return task


def create_task(config: DictConfig, **given: Any) -> SequenceTask:
    options = _arguments(config.task)
    try:
        return _task_class(config)(**options, **given)
    except TypeError as error:  # of a comparison, whose message doesn't name the argument
        words = ", ".join(f"{name}={value!r}" for name, value in options.items() if isinstance(value, str))
        raise ConfigurationError(f"task: {error}; given as text: {words or 'nothing'}") from error


def versions() -> dict[str, str]:
    """Returns the versions of Python, unrolled, torch and Lightning."""
    made_with = {"unrolled": unrolled, "torch": torch, "lightning": lightning}
    return {"python": platform.python_version(), **{name: str(p.__version__) for name, p in made_with.items()}}


def _takes_processor(config: DictConfig) -> bool:
    takes = inspect.signature(locate(config.data._target_)).parameters
    return "processor_from" in takes or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())


def check_processor(config: DictConfig, data: SequenceData, wanted: Mapping[str, Any]) -> None:
    """Checks that data which don't accept a processor have the same processor as the network."""
    if not _takes_processor(config) and data.processor().to_dict() != wanted:
        raise ConfigurationError(
            f"data: their processor differs from the network's; let {config.data._target_} take processor_from, the "
            "to_dict() of a trained network's processor"
        )


def _task_class(config: DictConfig) -> type[SequenceTask]:
    return locate(config.task._target_)


def _arguments(node: DictConfig) -> dict[str, Any]:
    return {name: value for name, value in plain_values(node).items() if name != "_target_"}


def _check_optimizer(optimizer: Callable[[Iterable[Any]], Optimizer], node: DictConfig) -> None:
    try:
        optimizer([torch.nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as error:
        negative = [f"optimizer.{name}={value}: 0 or more" for name, value in node.items() if _is_negative(value)]
        raise ConfigurationError(f"{negative[0] if negative else 'optimizer'} ({error})") from error


def _is_negative(value: Any) -> bool:
    return isinstance(value, (int, float)) and value < 0
