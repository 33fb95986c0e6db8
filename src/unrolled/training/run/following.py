"""What to type after a run: commands that work as they are printed, where the run was started."""

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
from unrolled.training.configuration.quoting import written
from unrolled.training.console.terminal import from_here, shown
from unrolled.training.data.base import SequenceData
from unrolled.training.tasks.base import SequenceTask


def following(config: DictConfig, data: SequenceData, task: SequenceTask, checkpoint: str, folder: Path) -> list[str]:
    """Commands, and sentences on them that begin with #.

    Args:
        config: the run's.
        data: what it was trained on.
        task: what it was about.
        checkpoint: path of what was trained.
        folder: the run's.
    """
    packages = task.foreign_packages()
    commands = list(task.commands(" ".join([shown(checkpoint), *(f"--trust {package}" for package in packages)])))
    options = differences(config) if config.get("choices") else None
    if options is not None:
        given = [f"checkpoint={written(from_here(checkpoint))}"]
        given += [f"trusted=[{','.join(packages)}]"] if packages else []
        score = ["python -m unrolled evaluate", *_searched(), *map(shlex.quote, given)]
        part = [] if data.evaluated_split == "test" else [f"split={data.evaluated_split}"]
        commands.append(" ".join([*score, *map(shlex.quote, [*options, *part])]))
        if data.own_files():
            commands.append(f"# data of yours: {' '.join(score)} {data.own_files()}")
    if (folder / "tensorboard").exists():
        commands.append(f"python -m tensorboard.main --logdir {shown(folder)}")
    return commands


def differences(config: DictConfig) -> list[str] | None:
    """What to tell an evaluation, so that it reads the same data and scores them alike; None if nobody knows."""
    choices = config.get("choices") or {}
    searched = [f"hydra.searchpath=[{','.join(map(written, _searchpath()))}]"] if _searchpath() else []
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            plain = compose("evaluate", [*searched, *(f"{group}={choice}" for group, choice in choices.items())])
    except HydraException:  # composed in Python, with folders that nobody knows now
        return None
    finally:
        GlobalHydra.instance().hydra = before  # composing leaves another instance behind
    return [each for group in choices for each in _changes(config[group], plain[group], group)]


def _changes(ours: DictConfig, theirs: DictConfig, path: str) -> Iterator[str]:
    """Overrides that make their options ours. What refers to other options is compared by what it refers to."""
    values = OmegaConf.to_container(ours, resolve=True)
    yield from _changed(OmegaConf.to_container(ours), OmegaConf.to_container(theirs), values, path)


def _changed(ours: Any, theirs: Any, values: Any, path: str) -> Iterator[str]:
    if not (isinstance(ours, Mapping) and isinstance(theirs, Mapping)):
        if ours != theirs:
            yield f"{path}={written(values)}"
        return
    for key in ours:
        if key in theirs:
            yield from _changed(ours[key], theirs[key], values[key], f"{path}.{key}")
        else:
            yield f"+{path}.{key}={written(values[key])}"
    yield from (f"~{path}.{key}" for key in theirs if key not in ours)


def _searchpath() -> list[str]:
    """Where configuration files of the user's own lie."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    folders = [str(Path(source.path).resolve()) for source in sources if source.provider == "command-line"]
    return [*folders, *map(str, HydraConfig.get().searchpath)]


def _searched() -> list[str]:
    """The same as typed."""
    found = _searchpath()
    folders = [f"--config-dir {shown(path)}" for path in found if Path(path).is_absolute()]
    packages = [path for path in found if not Path(path).is_absolute()]
    searched = [shlex.quote(f"hydra.searchpath=[{','.join(map(written, packages))}]")] if packages else []
    return folders + searched
