"""The commands train.py and evaluate.py. They check the overrides, then Hydra composes and runs."""

import logging
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from unrolled.training.callbacks.nonfinite import NonFiniteError
from unrolled.training.configuration.launch import default_folder
from unrolled.training.configuration.options import drop
from unrolled.training.configuration.overrides import (
    ConfigurationError,
    check_overrides,
    config_folder,
    dropped_options,
    forced,
)
from unrolled.training.configuration.run_dir import in_run_dir, is_sweep, refuse_unwritable, starts_run
from unrolled.training.run.folder import FolderError
from unrolled.training.run.help import help_text
from unrolled.training.run.job import Job
from unrolled.training.run.ranks import (
    PARENT,
    RankError,
    is_first,
    is_orphan,
    joins_another_node,
    name_of_process,
    place,
    receive,
    refuse,
    take_stray_variables,
)
from unrolled.training.run.records import FAILED, WRONG_INPUT, begin_job, job_failed, job_succeeded
from unrolled.training.run.requeue import hold_signals
from unrolled.training.run.sweep_command import (
    WITH_VALUE,
    split_options,
    with_launcher,
    with_recorded,
    without_multirun,
)
from unrolled.training.run.sweeps import Sweep
from unrolled.wording import refused

_log = logging.getLogger(__name__)
_STARTED = time.time()
Run = Callable[[DictConfig], dict[str, float]]
CHOICES = ("task", "data")  # groups whose choices a checkpoint stores, so that evaluate.py needs no arguments for them
WITHOUT = ("--help", "-h", "--hydra-help", "--version", "--multirun", "-m", "--run", "-r", "--resolve")
OPTIONS = (*WITH_VALUE, *WITHOUT, "--shell-completion", "-sc")


def train(arguments: Sequence[str] | None = None) -> None:
    """Runs `python train.py …` or `python -m unrolled train …`; by default with the arguments of the command line."""
    _command("train", _train, arguments)


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Runs `python evaluate.py …` or `python -m unrolled evaluate …`."""
    _command("evaluate", _evaluate, arguments)


def _train(config: DictConfig) -> dict[str, float]:
    # Imported here, since a misspelt key and --help should not wait for torch and lightning.
    from unrolled.training.run.runner import run

    return run(config)


def _evaluate(config: DictConfig) -> dict[str, float]:
    from unrolled.training.run.runner import score

    return score(config)


def _command(name: str, function: Run, arguments: Sequence[str] | None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    typed = given if arguments is None else [name, *given]  # python -m unrolled train …
    take_stray_variables()
    hold_signals(given)
    if is_orphan():
        _stop("the process that started this one has ended", FAILED)
    begin_job()
    if not is_first() or joins_another_node(given):
        if starts_run(given):
            _join(function, typed)
    else:
        try:
            _compose(name, function, given, typed)
        finally:
            if starts_run(given):
                refuse()  # has no effect after the run was published


def _join(function: Run, typed: list[str]) -> None:
    """Runs what rank 0 has composed."""
    try:
        text = receive()
    except RankError as error:
        _stop(str(error), FAILED)
    if not text:
        sys.exit(WRONG_INPUT)  # rank 0 has printed the reason
    job, here = Job.from_text(text), place()
    if (here is None or not here.started_by.startswith("rank")) and list(job.arguments) != typed:
        _stop(f"rank 0 was started with other arguments; start all processes with its own: {shlex.join(job.arguments)}")
    job.start_logging(name_of_process())
    sys.argv[1:] = job.arguments
    _run(job.config, function)


def _run(config: DictConfig, function: Run) -> None:
    """Runs a composed configuration, and reports its scores or its error: to the record of its job, too, in a sweep."""
    try:
        numbers = function(config)
    except Exception as error:  # what has no answer is raised again, with its traceback
        answer = _answer(error)
        if answer and answer[1] == WRONG_INPUT and not _begun(error) and not isinstance(error, FolderError):
            _remove_unbegun_run()  # but a folder that is another run's
        if answer:
            _stop(*answer)
        job_failed(f"{type(error).__name__}: {error}", FAILED)
        raise
    job_succeeded(numbers, Path(config.run_dir), config.get("monitor") or {})


def _compose(name: str, function: Run, given: list[str], typed: list[str]) -> None:
    """Checks the command line, then Hydra composes and runs."""
    added: list[str] = []
    sweep: Sweep | None = None
    try:
        given = with_launcher(with_recorded(given))
        added = _choices_of_checkpoint(given) if name == "evaluate" else []
        left_out = _check(name, [*given, *added])
        _refuse_started_sweep(given)
        given = [*in_run_dir([*given, *added]), *left_out]
        given += default_folder(given) if name == "train" else []
        refuse_unwritable(given)
        if is_sweep(given) and starts_run(given):
            options, overrides = split_options(given)
            sweep = Sweep.begin(name, _program(name, typed), without_multirun(options), overrides)
    except ValueError as error:
        missing = [choice for choice in added if str(error).startswith(f"{choice}: there is no such")]
        hint = f"\n{missing[0]} is what the checkpoint says; --config-dir FOLDER says where it lies" if missing else ""
        _stop(f"{error}{hint}")

    def prepared(config: DictConfig) -> dict[str, float]:
        _drop_options(config)
        if name == "train":
            choices = HydraConfig.get().runtime.choices
            config.choices = {group: choices[group] for group in CHOICES}
        return function(config)

    def guarded(config: DictConfig) -> None:
        if Sweep.is_running():
            Sweep.load(Path(HydraConfig.get().sweep.dir)).run_job()
            return
        sys.argv[1:] = typed  # which the summary contains, and from which further processes start
        _run(config, prepared)

    main = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=name)(guarded)
    options, overrides = split_options(given if sweep is None else sweep.arguments())
    sys.argv[1:] = map(forced, [*options, *overrides])  # which Hydra reads: overrides in one place, for argparse
    if sweep is None:
        main()
        return
    try:
        with sweep.running():
            main()
    except ConfigurationError as error:  # another process runs this sweep
        _stop(str(error))
    if sweep.exit_status:
        sys.exit(sweep.exit_status)


def _program(name: str, typed: Sequence[str]) -> list[str]:
    """Returns the start of a command line for the jobs of a sweep, as that of this process."""
    script = Path(sys.argv[0])
    if script.suffix == ".py" and typed[:1] != [name]:
        return [sys.executable, str(script.resolve())]
    return [sys.executable, "-m", "unrolled", name]


def _refuse_started_sweep(arguments: Sequence[str]) -> None:
    """Refuses a sweep whose processes a launcher has started: they belong to one run."""
    here = place()
    if here is not None and here.world_size > 1 and is_sweep(arguments):
        raise ConfigurationError(
            f"-m: {here.started_by} started {here.world_size} processes for one run; start a sweep as one process"
        )


def _answer(error: Exception) -> tuple[str, int] | None:
    """Returns the message and the exit status for an error; None for an error that needs its traceback."""
    if os.environ.get("HYDRA_FULL_ERROR"):
        return None
    if isinstance(error, NonFiniteError | RankError):
        return str(error), FAILED
    ours = isinstance(error, ValueError | OmegaConfBaseException)
    system = _system(error) if isinstance(error, ValueError | OSError | RuntimeError) else None
    if system is None:
        return (str(error), WRONG_INPUT) if ours and not _begun(error) else None
    return str(error) if ours else refused(system, "run_dir=…, data.cache=… or $UNROLLED_CACHE"), WRONG_INPUT


def _choices_of_checkpoint(arguments: Sequence[str]) -> list[str]:
    """Returns the task and data choices that a network was trained on, unless the command line gives others."""
    found = [a for a in arguments if a.lstrip("+").startswith(("checkpoint=", "task=", "data="))]
    try:
        given = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(found)}
    except HydraException:
        return []  # reported by `check_overrides`
    path = given.get("checkpoint")
    if "task" in given or not isinstance(path, str) or "${" in path:
        return []
    from unrolled.checkpoint import KEY, read_checkpoint

    info = read_checkpoint(path)[KEY]["info"]
    choices: dict[str, str] = info["choices"] if isinstance(info.get("choices"), dict) else {}
    return [f"{group}={choices[group]}" for group in CHOICES if group in choices and group not in given]


def _begun(error: Exception) -> bool:
    return getattr(error, "begun", False)


def _system(error: BaseException | None) -> OSError | None:
    """Returns the OSError behind an error, for example behind one of torch's checkpoint writer."""
    if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
        return None
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _check(name: str, arguments: list[str]) -> list[str]:
    """Checks a command's overrides. Returns, with --cfg, the overrides that remove the options a run drops."""
    overrides = [a for a in arguments if not a.startswith("-")]
    config_dir: str | None = None
    for position, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        if argument.startswith("-") and option not in OPTIONS:
            raise ConfigurationError(_dashed(argument))
        if option in ("--config-dir", "-cd"):
            config_dir = value or (arguments[position + 1] if position + 1 < len(arguments) else "")
        if option in ("--config-name", "-cn", "--config-path", "-cp"):
            return []  # another configuration, which only Hydra checks
        if option in WITH_VALUE and not value:
            following = arguments[position + 1 : position + 2]
            overrides = [o for o in overrides if o not in following]
    if {"--help", "-h"} & set(arguments):
        print(help_text(name, config_dir))
        sys.exit(0)
    if not {"--hydra-help", "--version"} & set(arguments):
        dropped = check_overrides(name, overrides, config_dir, sweep=is_sweep(arguments))
        if any(a.partition("=")[0] in ("--cfg", "-c") for a in arguments):
            if is_sweep(arguments):
                raise ConfigurationError("--cfg: prints the configuration of one run; leave out -m")
            return [f"~{path}" for path in dropped]
    return []


def _dashed(argument: str) -> str:
    """Returns the message for `--model=gru`, which other programs accept."""
    said = argument.lstrip("-")
    if "=" in said:
        return f"{argument}: choices and settings are written without dashes: {said}"
    return f"{argument}: no such option; choices and settings are written as key=value, without dashes"


def _drop_options(config: DictConfig) -> None:
    """Removes an experiment's options for choices that the command line replaces, and logs them."""
    hydra_config = HydraConfig.get()
    dropped = dropped_options(str(hydra_config.job.config_name), list(hydra_config.overrides.task))
    drop(config, dropped)
    if dropped and is_first():
        _log.info("dropped together with the choices that took them: %s", ", ".join(dropped))


def _remove_unbegun_run() -> None:
    """Removes the folder of a run that did not start, unless it contains a file older than this process."""
    if not (HydraConfig.initialized() and is_first()):
        return
    folder = Path(HydraConfig.get().runtime.output_dir)
    if any(path.stat().st_mtime < _STARTED for path in folder.rglob("*") if path.is_file()):
        return
    shutil.rmtree(folder, ignore_errors=True)
    for parent in list(folder.parents)[:3]:
        if parent == Path.cwd() or any(parent.iterdir()):
            break
        parent.rmdir()


def _stop(said: str, status: int = WRONG_INPUT) -> NoReturn:
    script = Path(sys.argv[0]).name
    script = f"unrolled {sys.argv[1]}" if script == "__main__.py" else script
    text = "\n".join(said.strip().splitlines()[:6])
    job_failed(said, status)
    process, here = name_of_process(), place()
    if here is not None and here.started_by.startswith("rank") and os.getppid() == PARENT:
        sys.exit(status)  # the process that started this one reports it
    print(f"{script}: {process}{': ' if process else ''}{text}", file=sys.stderr)
    sys.exit(status)
