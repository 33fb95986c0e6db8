# pyright: reportPrivateUsage=false
# OmegaConf distinguishes interpolations from their values only by private methods.
"""Checks of a configuration's options against the constructors that take them, before torch is imported."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from unrolled.training.configuration.schema import Kind, Signature, ancestors, describe, fields, fits, signature
from unrolled.wording import article

TRAINER = "lightning.pytorch.Trainer"
GIVEN = ("self", "callbacks", "logger", "default_root_dir")  # arguments of the Trainer that a run sets itself
BUILT = ("data", "task", "network", "optimizer", "scheduler")  # the nodes that a run instantiates
BUILT_EACH = ("callbacks", "logger")  # the nodes whose children a run instantiates
PACKAGES = {  # packages that Lightning's loggers need
    "lightning.pytorch.loggers.WandbLogger": "wandb",
    "lightning.pytorch.loggers.MLFlowLogger": "mlflow",
    "lightning.pytorch.loggers.TensorBoardLogger": "tensorboard",
}


class ConfigurationError(ValueError):
    """A mistake in a configuration. The message names the place, the value, what is allowed and the nearest match."""


class Settings:
    """The keys of a run outside of groups, and their types."""

    seed: int | None
    threads: int | None
    timeout: int | float
    compile: bool
    run_dir: str
    launch: str | None
    resume: str | None
    init_from: str | None
    initialization: str
    epochs: int
    learning_rate: int | float
    validation_interval: int | float
    monitor: Mapping[str, str]
    test: bool
    requeue: bool
    checkpoint: str
    trusted: Sequence[str]
    split: str


def check_options(config: DictConfig) -> None:
    """Checks the types of values, and that options belong to a class.

    Raises:
        ConfigurationError: names the key, the value, and the expected type.
    """
    for path in (*BUILT, *(f"{group}.{name}" for group in BUILT_EACH for name in config.get(group) or ())):
        node = OmegaConf.select(config, path, throw_on_missing=False)
        if isinstance(node, DictConfig) and len(node) and "_target_" not in node:
            raise ConfigurationError(_no_class(path, node))
    for name, logger in (config.get("logger") or {}).items():
        package = PACKAGES.get(logger.get("_target_", "") if isinstance(logger, DictConfig) else "")
        if package and find_spec(package) is None:
            raise ConfigurationError(f"logger.{name} needs a package that is not installed: pip install {package}")
    data = config.get("data")
    made = signature(data["_target_"]) if isinstance(data, DictConfig) and "_target_" in data else None
    if made is not None and (lacking := sorted(made.required - set(map(str, data or ())))):
        raise ConfigurationError(f"data: {made.target} needs {', '.join(lacking)}; choose data that others build on it")
    own = fields(f"{__name__}.Settings")
    for key in (key for key in config if key in own):
        _check_value(config, str(key), str(key), own[str(key)])
    _check_node(config, "")


def trainer_arguments() -> list[str]:
    """Returns the arguments of lightning.pytorch.Trainer that a configuration may give, without importing it."""
    return [name for name in _trainer().parameters if name not in GIVEN]


def leftovers(config: DictConfig, base: DictConfig, chosen: Sequence[str]) -> list[str]:
    """Returns the options that other files give to a choice which does not take them.

    Args:
        config: the whole configuration.
        base: the same choices, without files that give options to other groups (an experiment).
        chosen: groups, such as `callbacks.averaging`, whose choice was not made by these files.
    """
    found: list[str] = []
    for path in chosen:
        node = OmegaConf.select(config, path, throw_on_missing=False)
        if isinstance(node, DictConfig):
            found += _stale(node, OmegaConf.select(base, path, throw_on_missing=False), path)
    return found


def drop(config: DictConfig, paths: Sequence[str]) -> None:
    """Removes options from a configuration."""
    for path in paths:
        parent, _, key = path.rpartition(".")
        node = OmegaConf.select(config, parent)
        with open_dict(node):
            del node[key]


def _stale(node: DictConfig, base: Any, path: str) -> Iterator[str]:
    inner = base if isinstance(base, DictConfig) else OmegaConf.create({})
    target = inner.get("_target_")
    made = signature(target) if target else _trainer() if path == "trainer" else None
    for key in node:
        child = node._get_node(key)
        if key in list(inner):
            there = inner._get_node(key)
            if isinstance(child, DictConfig) and isinstance(there, DictConfig) and not _is_interpolation(child):
                yield from _stale(child, there, f"{path}.{key}")
        elif isinstance(child, DictConfig) and "_target_" in child:
            continue  # has its own class
        elif not (made.takes(str(key)) if made else bool(target)):
            yield f"{path}.{key}"


def _check_node(node: DictConfig | ListConfig, path: str) -> None:
    """Checks the arguments of all constructors in a node."""
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    made = _trainer() if path == "trainer" else signature(target) if isinstance(target, str) else None
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        place = f"{path}.{key}" if path else str(key)
        child = node._get_node(key)
        if made is not None and not str(key).startswith("_"):
            if not made.takes(str(key)):
                raise ConfigurationError(_not_taken(place, str(key), made))
            _check_value(node, key, place, made.parameters.get(str(key), ()), made.target)
        if isinstance(child, (DictConfig, ListConfig)) and not _is_interpolation(child) and not child._is_none():
            _check_node(child, place)


def _check_value(node: Any, key: Any, place: str, kinds: tuple[Kind, ...], target: str = "") -> None:
    try:
        if OmegaConf.is_missing(node, key):
            return
        value = node[key]
        if isinstance(value, (DictConfig, ListConfig)):
            if isinstance(value, DictConfig) and "_target_" in value:
                value = {"_target_": value.get("_target_")}  # its arguments are checked by `_check_node`
            else:
                value = OmegaConf.to_container(value, resolve=True)
    except (OmegaConfBaseException, ValueError):
        return  # known only in a run, such as ${sizes.vocabulary}
    if value is None and _is_interpolation(node._get_node(key)):
        return  # a missing choice, such as an evaluation's model, is reported where it is needed
    options = next((kind.options for kind in kinds if kind.options), "")
    if options and isinstance(value, Mapping):
        _check_options_of(options, cast("Mapping[str, Any]", value), _origin(node, key, place))
    elif isinstance(value, Mapping) and (items := next((k.items for k in kinds if k.name == "mapping"), ())):
        for name, item in cast("Mapping[str, Any]", value).items():
            if not fits(items, item):
                raise ConfigurationError(_misfit(f"{_origin(node, key, place)}.{name}", item, items, target))
    elif not fits(kinds, value):
        raise ConfigurationError(_misfit(_origin(node, key, place), value, kinds, target))


def _check_options_of(target: str, options: Mapping[str, Any], place: str) -> None:
    """Checks options that a constructor passes to a class which it instantiates itself."""
    made = signature(target)
    if made is None:
        return
    for name, value in options.items():
        if not made.takes(name):
            raise ConfigurationError(_not_taken(f"{place}.{name}", name, made))
        if not fits(made.parameters.get(name, ()), value):
            raise ConfigurationError(_misfit(f"{place}.{name}", value, made.parameters[name], target))


def check_task_of_data(config: DictConfig) -> None:
    """Checks that the data and the task of this package belong together.

    Raises:
        ConfigurationError: names the task that the data need.
    """
    places = ("data.problem._target_", "data._target_", "task._target_")  # generated data name a problem of a task
    problem, data, task = (OmegaConf.select(config, place, throw_on_missing=False) for place in places)
    data = problem or data
    if not (isinstance(data, str) and isinstance(task, str)):
        return
    readers, learners = packages_of(data), packages_of(task)
    if readers and learners and not readers & learners:
        wanted = sorted(readers)[0]
        raise ConfigurationError(
            f"data: {data} makes batches for task={wanted}, and the task here is {sorted(learners)[0]}; "
            f"add task={wanted} or choose other data"
        )


def check_choices_are_used(config: DictConfig, chosen: Sequence[tuple[str, str]]) -> None:
    """Checks that the chosen parts of a network are read, such as an attention by a decoder that has one.

    Args:
        config: the whole configuration.
        chosen: groups and the choices made on the command line.

    Raises:
        ConfigurationError: nothing refers to a part.
    """
    text = OmegaConf.to_yaml(config)
    for group, choice in chosen:
        node = config.get(group) if group not in BUILT else None
        if isinstance(node, DictConfig) and "_target_" in node and not re.search(rf"\$\{{{group}[.}}]", text):
            raise ConfigurationError(
                f"{group}={choice}: the chosen network has no {group}\n"
                f"Remove it, or choose parts that use {article(group)}"
            )


def packages_of(target: str) -> set[str]:
    """Returns the packages within unrolled_tasks of a class and its base classes."""
    names = (ancestor.split(".") for ancestor in ancestors(target))
    return {words[1] for words in names if words[0] == "unrolled_tasks" and len(words) > 2}


def _trainer() -> Signature:
    found = signature(TRAINER)
    if found is None:
        raise ConfigurationError("training needs lightning, which is not installed: pip install 'unrolled[train]'")
    return found


def _origin(node: Any, key: Any, place: str) -> str:
    """Returns the key that a value comes from: seed for `${seed}`."""
    child = node._get_node(key)
    raw = OmegaConf.to_container(node, resolve=False)[key] if _is_interpolation(child) else None  # type: ignore[index]  # of a DictConfig it is a dict
    found = re.fullmatch(r"\$\{([\w.]+)\}", raw) if isinstance(raw, str) else None
    if found is None:
        return place
    parent, _, name = found[1].rpartition(".")
    root = node._get_root()
    above = OmegaConf.select(root, parent) if parent else root
    return _origin(above, name, found[1]) if isinstance(above, DictConfig) and name in above else found[1]


def _is_interpolation(node: Any) -> bool:
    return node is not None and bool(node._is_interpolation())


def _not_taken(place: str, name: str, made: Signature) -> str:
    known = [parameter for parameter in made.parameters if parameter not in GIVEN]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{place}: {made.target} takes no {name!r}{hint}\nIt takes {', '.join(known)}"


def _misfit(place: str, value: Any, kinds: tuple[Kind, ...], target: str) -> str:
    shown = json.dumps(value) if value is None or isinstance(value, (bool, list, dict)) else value
    owner = f", as {target} takes it" if target else ""
    text = any(kind.name == "str" for kind in kinds) and isinstance(value, (int, float))
    remedy = f"; as text: {place}='\"{shown}\"'" if text else ""
    return f"{place}={shown}: expected {describe(kinds)}{owner}{remedy}"


def _no_class(path: str, node: DictConfig) -> str:
    group = path.replace(".", "/")
    names = ", ".join(map(str, node))
    return f"{path}: {names} given, and no class to take it; choose one with {group}=…, or leave the options out"
