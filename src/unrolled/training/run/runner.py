"""Training and scoring from a configuration."""

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
from unrolled.training.callbacks.loggers import MetricsFile, start_loggers
from unrolled.training.callbacks.pruning import is_pruned
from unrolled.training.callbacks.threads import Threads
from unrolled.training.configuration.launch import is_restarted, torchrun_id
from unrolled.training.configuration.options import ConfigurationError, check_options
from unrolled.training.data.base import SequenceData
from unrolled.training.run import report
from unrolled.training.run.agreement import Agreement, joined
from unrolled.training.run.allocator import keep_freed_memory
from unrolled.training.run.environment import check_processes, cluster_environment, set_timeout
from unrolled.training.run.folder import lock_folder
from unrolled.training.run.job import flatten
from unrolled.training.run.monitors import MonitorCheck, check_monitors
from unrolled.training.run.processes import together
from unrolled.training.run.quiet import quiet
from unrolled.training.run.ranks import is_first
from unrolled.training.run.requeue import requeue_when_interrupted
from unrolled.training.run.resuming import check_same_data, data_settings, find_checkpoint, plan_as_before, resume_entry
from unrolled.training.run.sharded import ShardedStrategy
from unrolled.training.run.storage import DurableCheckpointIO
from unrolled.training.run.study import pruning_of_job
from unrolled.training.run.updates import Updates
from unrolled.training.tasks.base import SequenceTask
from unrolled.training.tasks.schedules import Schedule

_log = logging.getLogger(__name__)


class RunParts(NamedTuple):
    """The parts of a run that can be built before the data are read."""

    data: SequenceData
    trainer: Trainer
    optimizer: Callable[[Iterable[Any]], Optimizer] | None  # None in an evaluation
    schedule: Schedule | None


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
    seed_everything(config.seed, workers=True, verbose=False)
    parts.data.prepare()
    if start is not None:
        _check_processor(config, parts.data, start[KEY]["processor"])
    config.sizes = parts.data.sizes()
    task = build_task(config, parts)
    resumed = resume_entry(start, config.resume) if start is not None and config.resume else None
    planned = parts.trainer.world_size if resumed is None else plan_as_before(resumed, parts.data, parts.trainer)
    task.data_settings = data_settings(_plain(config.data), parts.data, parts.trainer, planned)
    if start is not None and resumed is not None:
        check_same_data(resumed["data_settings"], task.data_settings)
        for logger in parts.trainer.loggers if parts.trainer.is_global_zero else ():
            if isinstance(logger, MetricsFile):
                logger.continue_from(start["global_step"], Path(config.resume).parents[1])
    initialize(task.network, config.initialization)
    # Lightning converts later, and would round the weights of a resumed run with precision=64-true to 32 bits before.
    parts.trainer.precision_plugin.convert_module(task)
    if start is None:
        task.load_pretrained()
    else:
        load_weights(task.network, start, config.resume or config.init_from)
    if config.compile:
        _compile(task, parts.trainer)
    torch.manual_seed(config.seed)  # after the weights; with several processes, the task adds their ranks

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
        _check_processor(config, parts.data, content[KEY]["processor"])
        task = _create_task(config, network=description, processor=parts.data.processor(), optimizer=None)
        task.network = network
        task.attach(parts.data)
        parts.data.evaluate_split(config.split)
        _expect_agreement(parts.trainer, flatten(config))
        numbers = parts.trainer.test(task, datamodule=parts.data, verbose=False)[0]
        if parts.trainer.is_global_zero:
            report.print_scores(config, parts.data, task, numbers)
    return dict(numbers)


def assemble(config: DictConfig, *, processor: Mapping[str, Any] | None = None) -> RunParts:
    """Builds data, Trainer, optimizer and schedule. Errors name the place in the configuration."""
    check_options(config)
    callbacks = [_instantiate(config, f"callbacks.{name}") for name in config.get("callbacks") or {}]
    loggers = [_instantiate(config, f"logger.{name}") for name in config.get("logger") or {}]
    optimizer = _instantiate(config, "optimizer")
    if optimizer is not None:
        _check_optimizer(optimizer, config.optimizer)
    data = _instantiate(
        config, "data", **({} if processor is None or not _takes_processor(config) else {"processor_from": processor})
    )
    try:
        threads = Threads(config.get("threads"))
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    schedule = _instantiate(config, "scheduler")
    fresh = not (config.get("resume") or config.get("init_from"))
    wanted: list[Callback] = [
        threads,
        Updates(data, fresh=fresh),
        MonitorCheck(schedule),
        *pruning_of_job(config),
        *(callback for callback in callbacks if callback),
    ]
    trainer = _trainer(config, wanted, [logger for logger in loggers if logger])
    check_monitors(trainer, schedule)
    return RunParts(data, trainer, optimizer, schedule)


def check_network(config: DictConfig) -> None:
    """Builds the network on the meta device with placeholder sizes, so that wrong values are found early."""
    sizes = set(re.findall(r"\$\{sizes\.(\w+)\}", OmegaConf.to_yaml(config)))
    trial = config.copy()
    trial.sizes = dict.fromkeys(sizes, 8)
    with torch.device("meta"):
        _instantiate(trial, "network")
    signature = inspect.signature(_task_class(config))
    wrong = [name for name in _arguments(config.task) if name not in signature.parameters]
    if wrong:
        raise ConfigurationError(f"task.{wrong[0]}: {config.task._target_} takes {', '.join(signature.parameters)}")
    if config.initialization != "default":
        initialize(torch.nn.Linear(2, 2), config.initialization)


def build_task(config: DictConfig, parts: RunParts) -> SequenceTask:
    """Builds the task and its network, with the sizes of the data."""
    network = _plain(config.network)
    processor = parts.data.processor()
    task = _create_task(
        config, network=network, processor=processor, optimizer=parts.optimizer, schedule=parts.schedule
    )
    task.info = {"versions": versions(), "seed": int(config.seed), "data": parts.data.describe()}
    task.info["choices"] = dict(config.get("choices") or {})
    task.attach(parts.data)
    return task


def versions() -> dict[str, str]:
    """Returns the versions of Python, unrolled, torch and Lightning."""
    made_with = {"unrolled": unrolled, "torch": torch, "lightning": lightning}
    return {"python": platform.python_version(), **{name: str(p.__version__) for name, p in made_with.items()}}


def _task_class(config: DictConfig) -> type[SequenceTask]:
    return locate(config.task._target_)


def _takes_processor(config: DictConfig) -> bool:
    takes = inspect.signature(locate(config.data._target_)).parameters
    return "processor_from" in takes or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())


def _check_processor(config: DictConfig, data: SequenceData, wanted: Mapping[str, Any]) -> None:
    """Checks that data which don't accept a processor have the same processor as the network."""
    if not _takes_processor(config) and data.processor().to_dict() != wanted:
        raise ConfigurationError(
            f"data: their processor differs from the network's; let {config.data._target_} take processor_from, the "
            "to_dict() of a trained network's processor"
        )


def _create_task(config: DictConfig, **given: Any) -> SequenceTask:
    options = _arguments(config.task)
    try:
        return _task_class(config)(**options, **given)
    except TypeError as error:  # of a comparison, whose message doesn't name the argument
        words = ", ".join(f"{name}={value!r}" for name, value in options.items() if isinstance(value, str))
        raise ConfigurationError(f"task: {error}; given as text: {words or 'nothing'}") from error


def _arguments(node: DictConfig) -> dict[str, Any]:
    return {name: value for name, value in _plain(node).items() if name != "_target_"}


def _expect_agreement(trainer: Trainer, values: Mapping[str, Any]) -> None:
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] - set while it is built
    callbacks.insert(0, Agreement(values, versions()))


def _plain(node: DictConfig) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))


def _instantiate(config: DictConfig, path: str, **arguments: Any) -> Any:
    node = OmegaConf.select(config, path)
    if not node:  # null, or a choice such as none whose file is empty
        return None
    try:
        plain = _plain(node)
        if not arguments:
            return build(plain)
        # Values from a checkpoint are passed unchanged: if they were built with the rest, they could name any code.
        return build({**plain, "_partial_": True})(**arguments)
    except InterpolationKeyError as error:  # a choice for one task used with another task
        message = str(error).splitlines()[0]
        raise ConfigurationError(f"{path}: {message}; is it a choice for another task? Name that, task=…") from error
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
    arguments = _plain(config.trainer)
    _check_strategy(arguments.get("strategy"))
    if isinstance(arguments.get("strategy"), Mapping):
        arguments["strategy"] = _instantiate(config, "trainer.strategy")
    # Lightning refuses these switches together with callbacks of the kind, so such callbacks are removed.
    switches = {"enable_progress_bar": ProgressBar, "enable_checkpointing": Checkpoint}
    unwanted = tuple(kind for name, kind in switches.items() if arguments.get(name) is False)
    plugins: list[Any] = [*(arguments.pop("plugins", None) or []), DurableCheckpointIO()]
    environment = cluster_environment(int(arguments.get("num_nodes") or 1))
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
    set_timeout(trainer, config.timeout)
    asked = str(arguments.get("precision"))
    if asked in ("16", "16-mixed", "16-true") and trainer.strategy.root_device.type == "cpu":
        raise ConfigurationError(
            f"trainer.precision={asked}: float16 is for GPUs; on a CPU choose bf16-mixed or 32-true"
        )
    if str(trainer.precision).startswith("bf16") and trainer.strategy.root_device.type == "cpu":
        _warn_of_slow_bfloat16(str(trainer.precision))
    return trainer


def _compile(task: SequenceTask, trainer: Trainer) -> None:
    """Compiles the forward pass of the network with torch.compile, in place, so that names of weights stay."""
    if isinstance(trainer.strategy, ShardedStrategy):
        raise ConfigurationError(
            "compile=true: the parts of a sharded network (trainer=fsdp) are gathered by hooks between them, where a "
            "compiled network is interrupted; use one of the two"
        )
    task.network.compile()


def _check_strategy(strategy: Any) -> None:
    """Refuses FSDP1, which hides the norm of the gradient and the names of parameters."""
    if isinstance(strategy, str) and strategy.startswith("fsdp") and strategy != "fsdp2":
        raise ConfigurationError(
            f"trainer.strategy={strategy}: this is FSDP1, which PyTorch replaces; trainer=fsdp shards with FSDP2"
        )


def _warn_of_slow_bfloat16(precision: str) -> None:
    """Warns on a processor without bfloat16 instructions, where products are many times slower than in float32."""
    able = torch.cpu.get_capabilities()
    if able.get("architecture") == "x86_64" and not (able.get("avx512_bf16") or able.get("amx_bf16")):
        _log.warning(
            "trainer.precision=%s: this processor (%s) has no bfloat16 instructions and will be many times slower than "
            "with trainer.precision=32-true",
            precision,
            able.get("cpu_name", "x86_64"),
        )


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
