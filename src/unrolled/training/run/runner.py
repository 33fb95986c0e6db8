"""A run from its configuration: a list that a person can read aloud."""

import inspect
import logging
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError
from torch.optim import Optimizer

import unrolled
from unrolled.checkpoint import KEY, TRUSTED, build, described, load_weights, locate, read_checkpoint
from unrolled.layers.initialization import initialize
from unrolled.training.callbacks.interruption import Interruption
from unrolled.training.callbacks.loggers import MetricsFile, open_loggers
from unrolled.training.callbacks.threads import Threads
from unrolled.training.configuration.options import ConfigurationError, check_options
from unrolled.training.data.base import SequenceData
from unrolled.training.run import report
from unrolled.training.run.allocator import keep_freed_memory
from unrolled.training.run.environment import check_processes, check_requeue, cluster_environment, requeueing, restarted
from unrolled.training.run.folder import owned
from unrolled.training.run.monitors import MonitorCheck, check_monitors
from unrolled.training.run.quiet import quiet
from unrolled.training.run.resuming import check_same_reading, find_checkpoint, reading
from unrolled.training.run.storage import DurableCheckpointIO
from unrolled.training.run.updates import Updates
from unrolled.training.tasks.base import SequenceTask
from unrolled.training.tasks.schedules import Schedule

_log = logging.getLogger(__name__)


class RunParts(NamedTuple):
    """All of a run that can be built before its data have been looked at."""

    data: SequenceData
    trainer: Trainer
    optimizer: Callable[[Iterable[Any]], Optimizer] | None  # None in an evaluation
    schedule: Schedule | None


def run(config: DictConfig) -> dict[str, float]:
    """Trains, tests, and leaves everything in the run's folder; returns the test's numbers.

    Raises:
        ValueError: whatever is wrong with the configuration or the data, before training begins.
    """
    with quiet():
        return _run(config)


def _run(config: DictConfig) -> dict[str, float]:
    keep_freed_memory()
    if config.get("requeue"):
        check_requeue()
        config.resume = config.resume or restarted(Path(config.run_dir))
    if config.resume:
        config.resume = str(find_checkpoint(config.resume, Path(config.run_dir)))
    start = _starting_point(config)
    parts = assemble(config, codec=start[KEY]["codec"] if start else None)
    check_builds(config)
    _refuse_repeated_sweep(parts.trainer)

    first = parts.trainer.is_global_zero  # it also stands for those that it starts
    resumed = Path(config.resume) if config.resume else None
    requeue = requeueing(wanted=first and bool(config.get("requeue")))
    with requeue, owned(Path(config.run_dir), resume=resumed) if first else nullcontext():
        return _train(config, parts, start)


def _train(config: DictConfig, parts: RunParts, start: dict[str, Any] | None) -> dict[str, float]:
    open_loggers(parts.trainer)
    seed_everything(config.seed, workers=True, verbose=False)
    parts.data.prepare()
    if start is not None:
        _expect_codec(config, parts.data, start[KEY]["codec"])
    config.sizes = parts.data.sizes()
    task = build_task(config, parts)
    task.reading = reading(_arguments(config.data), parts.data, parts.trainer)
    if start is not None and config.resume:
        check_same_reading(start[KEY]["resume"].get("reading", {}), task.reading)
        for logger in parts.trainer.loggers if parts.trainer.is_global_zero else ():
            if isinstance(logger, MetricsFile):
                logger.go_on(start["global_step"], Path(config.resume).parents[1])
    initialize(task.network, config.initialization)
    if start is None:
        task.load_pretrained()
    else:
        load_weights(task.network, start, config.resume or config.init_from)
    torch.manual_seed(config.seed + parts.trainer.global_rank)  # dropout differs between processes, weights don't

    folder = Path(config.run_dir)
    if parts.trainer.is_global_zero:
        report.write_configuration(config, folder)
        report.announce(config, parts.data, task, parts.trainer)
    began = time.perf_counter()
    try:
        parts.trainer.fit(task, datamodule=parts.data, ckpt_path=config.resume, weights_only=True)
        seconds = time.perf_counter() - began
        numbers = _test(parts, task) if config.test else {}
        if parts.trainer.is_global_zero:
            report.conclude(config, folder, parts.data, parts.trainer, task, numbers, seconds)
    except (ValueError, OSError, RuntimeError) as error:
        # A run that has begun keeps its folder and shows its traceback.
        error.begun = task.begun and not isinstance(error, ConfigurationError)  # type: ignore[attr-defined]
        raise
    return numbers


def score(config: DictConfig) -> dict[str, float]:
    """Scores a trained network on any data, without training; returns the numbers."""
    with quiet():
        return _score(config)


def _score(config: DictConfig) -> dict[str, float]:
    keep_freed_memory()
    content = read_checkpoint(config.checkpoint)
    trusted = _trusted(config)
    _, network = (described(content, name, config.checkpoint, trusted) for name in ("codec", "network"))
    if config.seed is None:
        seed = content[KEY]["info"].get("seed", 1)
        config.seed = seed if isinstance(seed, int) else 1
    description = content[KEY]["network"]
    parts = assemble(config, codec=content[KEY]["codec"])
    load_weights(network, content, config.checkpoint)

    seed_everything(config.seed, workers=True, verbose=False)
    parts.data.prepare()
    _expect_codec(config, parts.data, content[KEY]["codec"])
    task = _made_task(config, network=description, codec=parts.data.codec(), optimizer=None)
    task.network = network
    task.attach(parts.data)
    parts.data.evaluate_split(config.split)
    numbers = parts.trainer.test(task, datamodule=parts.data, verbose=False)[0]
    if parts.trainer.is_global_zero:
        report.print_scores(config, parts.data, task, numbers)
    return dict(numbers)


def assemble(config: DictConfig, *, codec: Mapping[str, Any] | None = None) -> RunParts:
    """Builds data, trainer, optimizer and schedule, each mistake named by its place in the configuration."""
    check_options(config)
    callbacks = [_built(config, f"callbacks.{name}") for name in config.get("callbacks") or {}]
    loggers = [_built(config, f"logger.{name}") for name in config.get("logger") or {}]
    optimizer = _built(config, "optimizer")
    if optimizer is not None:
        _check_optimizer(optimizer, config.optimizer)
    data = _built(config, "data", **({} if codec is None or not _takes_codec(config) else {"codec_from": codec}))
    try:
        threads = Threads(config.get("threads"))
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    schedule = _built(config, "scheduler")
    fresh = not (config.get("resume") or config.get("init_from"))
    wanted: list[Callback] = [
        threads,
        Updates(data, fresh=fresh),
        MonitorCheck(schedule),
        *(callback for callback in callbacks if callback),
    ]
    trainer = _trainer(config, wanted, [logger for logger in loggers if logger])
    check_monitors(trainer, schedule)
    return RunParts(data, trainer, optimizer, schedule)


def check_builds(config: DictConfig) -> None:
    """Builds the network without memory, on made-up sizes, so that a wrong value shows before data are read."""
    sizes = set(re.findall(r"\$\{sizes\.(\w+)\}", OmegaConf.to_yaml(config)))
    rehearsal = config.copy()
    rehearsal.sizes = dict.fromkeys(sizes, 8)
    with torch.device("meta"):
        _built(rehearsal, "network")
    signature = inspect.signature(_task_class(config))
    wrong = [name for name in _arguments(config.task) if name not in signature.parameters]
    if wrong:
        raise ConfigurationError(f"task.{wrong[0]}: {config.task._target_} takes {', '.join(signature.parameters)}")
    if config.initialization != "default":
        initialize(torch.nn.Linear(2, 2), config.initialization)


def build_task(config: DictConfig, parts: RunParts) -> SequenceTask:
    """The task around a network whose sizes the data have told."""
    network = cast("dict[str, Any]", OmegaConf.to_container(config.network, resolve=True))
    codec = parts.data.codec()
    task = _made_task(config, network=network, codec=codec, optimizer=parts.optimizer, schedule=parts.schedule)
    task.info = {"versions": versions(), "seed": int(config.seed), "data": parts.data.describe()}
    task.info["choices"] = dict(config.get("choices") or {})
    task.attach(parts.data)
    return task


def versions() -> dict[str, str]:
    """What the run was made with."""
    made_with = {"unrolled": unrolled, "torch": torch, "lightning": lightning}
    return {"python": platform.python_version(), **{name: str(p.__version__) for name, p in made_with.items()}}


def _task_class(config: DictConfig) -> type[SequenceTask]:
    return locate(config.task._target_)


def _takes_codec(config: DictConfig) -> bool:
    takes = inspect.signature(locate(config.data._target_)).parameters
    return "codec_from" in takes or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())


def _expect_codec(config: DictConfig, data: SequenceData, wanted: Mapping[str, Any]) -> None:
    """Refuses data whose own codec is another than the network's, if they cannot be given that one."""
    if not _takes_codec(config) and data.codec().to_dict() != wanted:
        raise ConfigurationError(
            f"data: these are written otherwise than what the network read; let {config.data._target_} take "
            "codec_from, the codec of a trained network as its to_dict() wrote it"
        )


def _made_task(config: DictConfig, **given: Any) -> SequenceTask:
    options = _arguments(config.task)
    try:
        return _task_class(config)(**options, **given)
    except TypeError as error:  # of a comparison, which doesn't say whose value it was
        words = ", ".join(f"{name}={value!r}" for name, value in options.items() if isinstance(value, str))
        raise ConfigurationError(f"task: {error}; given as text: {words or 'nothing'}") from error


def _arguments(node: DictConfig) -> dict[str, Any]:
    plain = cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))
    return {name: value for name, value in plain.items() if name != "_target_"}


def _built(config: DictConfig, path: str, **arguments: Any) -> Any:
    node = OmegaConf.select(config, path)
    if not node:  # null, or a choice such as none whose file is empty
        return None
    try:
        plain = cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))
        if not arguments:
            return build(plain)
        # What comes from a checkpoint is handed over as it is: built with the rest, it could name any code.
        return build({**plain, "_partial_": True})(**arguments)
    except InterpolationKeyError as error:  # of one task's choice with another task
        said = str(error).splitlines()[0]
        raise ConfigurationError(f"{path}: {said}; is it the choice of another task? Name that, task=…") from error
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _check_optimizer(optimizer: Callable[[Iterable[Any]], Optimizer], node: DictConfig) -> None:
    try:
        optimizer([torch.nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as error:
        negative = [f"optimizer.{name}={value}: 0 or more" for name, value in node.items() if _is_negative(value)]
        raise ConfigurationError(f"{negative[0] if negative else 'optimizer'} ({error})") from error


def _is_negative(value: Any) -> bool:
    return isinstance(value, (int, float)) and value < 0


def _trainer(config: DictConfig, callbacks: list[Callback], loggers: list[Logger]) -> Trainer:
    arguments = cast("dict[str, Any]", OmegaConf.to_container(config.trainer, resolve=True))
    # Lightning's own switches, which it would say no to where callbacks of the kind are given.
    switches = {"enable_progress_bar": ProgressBar, "enable_checkpointing": Checkpoint}
    unwanted = tuple(kind for name, kind in switches.items() if arguments.get(name) is False)
    plugins: list[Any] = [*(arguments.pop("plugins", None) or []), DurableCheckpointIO()]
    environment = cluster_environment()
    plugins += [] if environment is None else [environment]
    wanted = [callback for callback in callbacks if not isinstance(callback, unwanted)]
    if not any(isinstance(callback, Interruption) for callback in wanted):
        wanted.append(Interruption())
    try:
        trainer = Trainer(
            **arguments,
            callbacks=wanted,
            plugins=plugins,
            logger=loggers or False,
            default_root_dir=config.run_dir,
            use_distributed_sampler=False,  # plans of the data split by rank themselves
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        if arguments.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
            raise ConfigurationError(
                f"trainer.accelerator={arguments['accelerator']}: torch finds no GPU on this machine; trainer=cpu "
                "takes the processor, trainer=auto whatever there is"
            ) from error
        raise ConfigurationError(f"trainer: {error}") from error
    check_processes(trainer)
    if str(trainer.precision).startswith("bf16") and trainer.strategy.root_device.type == "cpu":
        _warn_of_slow_bfloat16(str(trainer.precision))
    return trainer


def _warn_of_slow_bfloat16(precision: str) -> None:
    """On a processor that multiplies bfloat16 in software, a product takes many times as long as in float32."""
    able = torch.cpu.get_capabilities()
    if able.get("architecture") == "x86_64" and not (able.get("avx512_bf16") or able.get("amx_bf16")):
        _log.warning(
            "trainer.precision=%s: this processor (%s) has no bfloat16 instructions and will be many times slower than "
            "with trainer.precision=32-true",
            precision,
            able.get("cpu_name", "x86_64"),
        )


def _refuse_repeated_sweep(trainer: Trainer) -> None:
    """Lightning starts further processes with this one's command line: each would go through the whole sweep anew."""
    sweeping = HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if sweeping and trainer.world_size > 1 and not getattr(environment, "creates_processes_externally", True):
        raise ConfigurationError(
            f"trainer: a sweep (-m) whose runs have {trainer.world_size} processes each; start the runs one by one, "
            "for example: for model in elman gru lstm; do python train.py model=$model trainer=ddp; done"
        )


def _starting_point(config: DictConfig) -> dict[str, Any] | None:
    if config.resume and config.init_from:
        raise ConfigurationError("resume and init_from exclude one another: go on with a run, or start one")
    path = config.resume or config.init_from
    if path is None:
        return None
    content = read_checkpoint(path)
    described(content, "codec", path, TRUSTED)  # refuses what is no codec; the network is the configuration's
    return content


def _trusted(config: DictConfig) -> tuple[str, ...]:
    return (*TRUSTED, *(f"{package.rstrip('.')}." for package in config.trusted))


def _test(parts: RunParts, task: SequenceTask) -> dict[str, float]:
    best = getattr(parts.trainer.checkpoint_callback, "best_model_path", "") or None
    results = parts.trainer.test(task, datamodule=parts.data, ckpt_path=best, verbose=False, weights_only=True)
    return dict(results[0]) if results else {}
