"""Commands printed after a run: they work as printed in the directory where the run was started."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from unrolled.training.configuration.overrides import config_folder
from unrolled.training.configuration.quoting import quote_value
from unrolled.training.configuration.schema import signature
from unrolled.training.console.terminal import quoted_path, relative_path
from unrolled.training.data.base import SequenceData
from unrolled.training.tasks.base import SequenceTask


def next_commands(
    config: DictConfig, data: SequenceData, task: SequenceTask, checkpoint: str, folder: Path
) -> list[str]:
    """Returns commands for the trained network, and comments that begin with #.

    Args:
        config: the run's configuration.
        data: the run's data.
        task: the run's task.
        checkpoint: path of the best checkpoint.
        folder: the run's folder.
    """
    packages = task.foreign_packages()
    commands = list(task.commands(" ".join([quoted_path(checkpoint), *(f"--trust {package}" for package in packages)])))
    options = changed_options(config) if config.get("choices") else None
    if options is not None:
        given = [f"checkpoint={quote_value(relative_path(checkpoint))}"]
        given += [f"trusted=[{','.join(packages)}]"] if packages else []
        score = ["python -m unrolled evaluate", *_search_path_options(), *map(shlex.quote, given)]
        split = [] if data.evaluated_split == "test" else [f"split={data.evaluated_split}"]
        commands.append(" ".join([*score, *map(shlex.quote, [*options, *split])]))
        if data.own_files():
            commands.append(f"# your own data: {' '.join(score)} {data.own_files()}")
    if (folder / "tensorboard").exists():
        commands.append(f"python -m tensorboard.main --logdir {quoted_path(folder)}")
    return commands


def changed_options(config: DictConfig) -> list[str] | None:
    """Returns the overrides with which an evaluation reads the same data and computes the same scores.

    None if they cannot be found.
    """
    choices = config.get("choices") or {}
    searched = [f"hydra.searchpath=[{','.join(map(quote_value, _search_path()))}]"] if _search_path() else []
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            plain = compose("evaluate", [*searched, *(f"{group}={choice}" for group, choice in choices.items())])
    except HydraException:  # composed in Python, with folders that are unknown here
        return None
    finally:
        GlobalHydra.instance().hydra = before  # composing replaces the instance
    return [each for group in choices for each in _changes(config[group], plain[group], group)]


def _changes(ours: DictConfig, theirs: DictConfig, path: str) -> Iterator[str]:
    """Yields the overrides that turn `theirs` into `ours`. Interpolations are compared by their text."""
    values = OmegaConf.to_container(ours, resolve=True)
    yield from _changed(OmegaConf.to_container(ours), OmegaConf.to_container(theirs), values, path)


def _changed(ours: Any, theirs: Any, values: Any, path: str) -> Iterator[str]:
    if not (isinstance(ours, Mapping) and isinstance(theirs, Mapping)):
        if ours != theirs:
            yield f"{path}={quote_value(values)}"
        return
    made = signature(str(ours.get("_target_")))
    for key in ours:
        if key in theirs:
            yield from _changed(ours[key], theirs[key], values[key], f"{path}.{key}")
        else:
            plus = "" if made and str(key) in made.parameters else "+"  # an argument that no signature names
            yield f"{plus}{path}.{key}={quote_value(values[key])}"
    yield from (f"~{path}.{key}" for key in theirs if key not in ours)


def _search_path() -> list[str]:
    """Returns the folders and packages of the user's own configuration files."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    folders = [str(Path(source.path).resolve()) for source in sources if source.provider == "command-line"]
    return [*folders, *map(str, HydraConfig.get().searchpath)]


def _search_path_options() -> list[str]:
    """Returns the options of a command line for `_search_path`."""
    found = _search_path()
    folders = [f"--config-dir {quoted_path(path)}" for path in found if Path(path).is_absolute()]
    packages = [path for path in found if not Path(path).is_absolute()]
    searched = [shlex.quote(f"hydra.searchpath=[{','.join(map(quote_value, packages))}]")] if packages else []
    return folders + searched
