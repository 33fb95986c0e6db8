"""The commands train.py and evaluate.py: overrides are checked, then Hydra composes and runs."""

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from unrolled.training.configuration import ConfigurationError, check_overrides, config_folder, dropped_options
from unrolled.training.folder import FolderError
from unrolled.training.nonfinite import NonFiniteError
from unrolled.training.options import drop
from unrolled.wording import refused

_log = logging.getLogger(__name__)
_STARTED = time.time()
WRONG_INPUT = 2  # exit status, as a shell's own commands have it


def train() -> None:
    """Python train.py …"""
    _command("train", _train)


def evaluate() -> None:
    """Python evaluate.py …"""
    _command("evaluate", _evaluate)


def _train(config: DictConfig) -> None:
    # Imported here, since a misspelt key and --help should not wait for torch and lightning.
    from unrolled.training.run import run

    run(config)


def _evaluate(config: DictConfig) -> None:
    from unrolled.training.run import score

    score(config)


def _command(name: str, function: Callable[[DictConfig], None]) -> None:
    try:
        _check(name, sys.argv[1:])
    except ConfigurationError as error:
        _stop(str(error))
    sys.argv[1:] = [_freed(argument) for argument in sys.argv[1:]]

    def guarded(config: DictConfig) -> None:
        try:
            _drop_options(config)
            function(config)
        except (ValueError, OmegaConfBaseException, OSError, RuntimeError) as error:
            if isinstance(error, NonFiniteError) and not os.environ.get("HYDRA_FULL_ERROR"):
                _stop(str(error), status=1)
            ours, begun, system = isinstance(error, ValueError | OmegaConfBaseException), _begun(error), _system(error)
            if os.environ.get("HYDRA_FULL_ERROR") or (system is None and (begun or not ours)):
                raise
            if not begun and not isinstance(error, FolderError):  # that folder is another run's
                _remove_unbegun_run()
            where = "run_dir=…, data.cache=… or $UNROLLED_CACHE"
            _stop(str(error) if ours or system is None else refused(system, where))

    hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=name)(guarded)()


def _begun(error: Exception) -> bool:
    return getattr(error, "begun", False)


def _system(error: BaseException | None) -> OSError | None:
    """What the system refused, also where another error was made of it, as by torch's writer of checkpoints."""
    if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
        return None
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _check(name: str, arguments: list[str]) -> None:
    overrides = [a for a in arguments if not a.startswith("-")]
    config_dir: str | None = None
    for position, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        if option in ("--config-dir", "-cd"):
            config_dir = value or (arguments[position + 1] if position + 1 < len(arguments) else "")
        if option in ("--config-name", "-cn", "--config-path", "-cp"):
            return  # another configuration altogether: Hydra's own messages have to do
        if option in ("--config-dir", "-cd", "--package", "-p", "--info", "-i", "--cfg", "-c") and not value:
            following = arguments[position + 1 : position + 2]
            overrides = [o for o in overrides if o not in following]
    if not any(a in ("--help", "-h", "--hydra-help", "--version") for a in arguments):
        sweep = bool({"-m", "--multirun"} & set(arguments))
        check_overrides(name, overrides, config_dir, sweep=sweep)


def _drop_options(config: DictConfig) -> None:
    """An experiment's options go with the choices that the command line replaces, and the run says so."""
    hydra_config = HydraConfig.get()
    dropped = dropped_options(str(hydra_config.job.config_name), list(hydra_config.overrides.task))
    drop(config, dropped)
    if dropped and os.environ.get("LOCAL_RANK", "0") == "0":
        _log.info("left out with the choices that took them: %s", ", ".join(dropped))


def _freed(argument: str) -> str:
    """The override in the form that sets a key whether or not a file mentions it (`++`): it has been checked.

    Arguments of Lightning's Trainer and of other libraries (`…_options`) need no plus, and a plus before a key that is
    there does no harm.
    """
    key = argument.lstrip("+")
    path = key.partition("=")[0]
    free = argument.startswith("+") or path.startswith("trainer.") or "_options." in path
    return f"++{key}" if free else argument


def _remove_unbegun_run() -> None:
    """Takes away the folder of a run that never began, unless it holds anything older than this process."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    if any(path.stat().st_mtime < _STARTED for path in folder.rglob("*") if path.is_file()):
        return
    shutil.rmtree(folder, ignore_errors=True)
    for parent in list(folder.parents)[:3]:
        if parent == Path.cwd() or any(path.name != "multirun.yaml" for path in parent.iterdir()):
            break
        shutil.rmtree(parent)  # empty, but for Hydra's note on a sweep of which no run began


def _stop(said: str, status: int = WRONG_INPUT) -> None:
    script = Path(sys.argv[0]).name
    text = "\n".join(said.strip().splitlines()[:6])
    print(f"{script}: {text}", file=sys.stderr)
    sys.exit(status)
