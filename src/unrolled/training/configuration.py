# pyright: reportPrivateUsage=false
# OmegaConf tells missing values and interpolations apart from others by methods with an underscore alone.
"""Mistakes on the command line, found from the YAML files alone, before torch or lightning is imported.

Hydra's own answer to a misspelt key is to propose `+key`, which then changes nothing. Here a key must exist in the
composed configuration, or be an argument of what it is given to.
"""

import ast
import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import unrolled

MOST_SWEPT = 256  # combinations of a sweep that are looked at before the first one runs


class ConfigurationError(ValueError):
    """A mistake in what was asked for: the place, the value, what is allowed, the nearest match."""


def config_folder() -> Path:
    """Where the YAML files lie: in the package when installed, at the top level of a working copy."""
    spec = find_spec(f"{unrolled.__name__}.conf")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent
    raise ConfigurationError("unrolled's configuration files are missing from this installation; install it again")


def check_overrides(config_name: str, overrides: Sequence[str], config_dir: str | None = None) -> None:
    """Refuses overrides that name what is not there.

    Args:
        config_name: the primary configuration, `train` or `evaluate`.
        overrides: as typed, `key=value`.
        config_dir: an additional folder of configuration files (--config-dir).

    Raises:
        ConfigurationError: with one line on what is wrong and one on what to write instead.
    """
    parser = OverridesParser.create()
    parsed: list[Override] = []
    for text in overrides:
        try:
            parsed.extend(parser.parse_overrides([text]))
        except HydraException:
            raise ConfigurationError(
                f"{text}: not an override; write key=value, and quote values with spaces"
            ) from None
    searched = [o for o in parsed if o.key_or_group.startswith("hydra.searchpath")]
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigurationError(f"--config-dir {config_dir}: no such folder")
        searched = [parser.parse_override(f"hydra.searchpath=[{Path(config_dir).resolve()}]")]
    for one in _expand_sweeps(parsed):
        _check_one(config_name, one, searched)


def _expand_sweeps(parsed: Sequence[Override]) -> Iterator[list[Override]]:
    """Every combination of a sweep, up to a limit; a single run is a sweep of one."""
    parser = OverridesParser.create()
    choices: list[list[Override]] = []
    for override in parsed:
        if override.is_sweep_override() and (override.is_choice_sweep() or override.is_range_sweep()):
            values = list(itertools.islice(override.sweep_string_iterator(), MOST_SWEPT))
            choices.append(parser.parse_overrides([f"{override.get_key_element()}={value}" for value in values]))
        elif not override.is_sweep_override():
            choices.append([override])
    for combination in itertools.islice(itertools.product(*choices), MOST_SWEPT):
        yield list(combination)


def _check_one(config_name: str, overrides: list[Override], searched: list[Override]) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        groups = [o for o in overrides if not o.key_or_group.startswith("hydra") and _is_group(o, loader)]
        extra = [o.input_line for o in searched if o.input_line]
        try:
            with_choices = compose(config_name, [*extra, *_lines(groups)])
        except HydraException as error:
            raise ConfigurationError(_explain_choice(str(error), groups, loader)) from None
        for override in overrides:
            if override not in groups and not override.key_or_group.startswith("hydra"):
                _check_key(override, with_choices)
        keys = [o for o in overrides if o not in groups and not o.key_or_group.startswith("hydra")]
        try:
            composed = compose(config_name, [*extra, *_lines(groups), *(forced(o) for o in keys)])
            _refuse_missing(composed)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigurationError(_first_lines(error)) from None
    GlobalHydra.instance().clear()


def _is_group(override: Override, loader: Any) -> bool:
    return bool(loader.list_groups(override.key_or_group) or loader.get_group_options(override.key_or_group))


def _lines(overrides: Iterable[Override]) -> list[str]:
    return [o.input_line for o in overrides if o.input_line is not None]


def forced(override: Override) -> str:
    """The override in the form that sets a key whether or not it stood in a file; it has been checked."""
    line = override.input_line or ""
    return line if line.startswith("~") or line.startswith("++") else f"++{line.lstrip('+')}"


def _check_key(override: Override, config: DictConfig) -> None:
    path = override.key_or_group.split(".")
    node: Any = config
    for depth, key in enumerate(path):
        where = ".".join(path[:depth])
        if isinstance(node, ListConfig) and key.isdigit() and int(key) < len(node):
            node = node._get_node(int(key))
            continue
        if not isinstance(node, DictConfig) or node._is_none():
            inner = "a list" if isinstance(node, ListConfig) else "a single value"
            raise ConfigurationError(f"{override.input_line}: {where} is {inner}, it has no {key!r}")
        if key in list(node):  # `in node` itself is false for a value that is still to be given
            node = node._get_node(key)
            continue
        if where == "trainer":
            allowed = trainer_arguments()
            if key in allowed:
                return
        elif "_target_" in node and override.is_add():
            return  # an argument that the files don't mention; building it will tell whether the class has it
        elif where.endswith("_options"):
            return  # handed on to another library as it is
        else:
            allowed = [str(k) for k in node if not str(k).startswith("_") and str(k) not in ("hydra", "sizes")]
        raise ConfigurationError(
            _unknown(override, where, key, allowed, adds=where != "trainer" and "_target_" in node)
        )


def _unknown(override: Override, where: str, key: str, allowed: Sequence[str], *, adds: bool) -> str:
    place = f"{where} has" if where else "there is"
    near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.6)
    prefix = f"{where}." if where else ""
    hint = f"; did you mean {prefix}{near[0]}?" if near else ""
    more = f"\nAn argument that the files don't mention takes a plus: +{prefix}{key}=…" if adds and not near else ""
    listed = ", ".join(sorted(allowed))
    return f"{override.input_line}: {place} no {key!r}{hint}\nKeys of {where or 'the configuration'}: {listed}{more}"


def _explain_choice(message: str, groups: Sequence[Override], loader: Any) -> str:
    """Hydra's message on a missing choice, shortened, with the nearest name."""
    found = re.search(r"Could not find '([^']+)'", message)
    if not found:
        return "\n".join(line for line in message.splitlines() if line.strip())[:600]
    group, _, choice = found[1].rpartition("/")
    for override in groups:  # the group that was asked for may be an outer folder: experiment=char_lm/name
        if found[1] == f"{override.key_or_group}/{override.value()}":
            group, choice = override.key_or_group, str(override.value())
    options = sorted(_options(group, loader))
    near = difflib.get_close_matches(choice, options, n=1, cutoff=0.5)
    hint = f"; did you mean {group}={near[0]}?" if near else ""
    return f"{group}={choice}: there is no such {group}{hint}\nChoices: {', '.join(options)}"


def _options(group: str, loader: Any) -> Iterator[str]:
    yield from loader.get_group_options(group)
    for folder in loader.list_groups(group):
        yield from (f"{folder}/{name}" for name in loader.get_group_options(f"{group}/{folder}"))


def _refuse_missing(config: DictConfig) -> None:
    missing = next(_missing(config, ""), None)
    if missing:
        raise ConfigurationError(f"{missing} has no default: add {missing}=…")


def _missing(node: DictConfig, prefix: str) -> Iterator[str]:
    """Keys whose value is ???, without following interpolations, some of which are only known in a run."""
    for key in node:
        child = node._get_node(key)
        if OmegaConf.is_missing(node, key):
            yield f"{prefix}{key}"
        elif isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            yield from _missing(child, f"{prefix}{key}.")


def trainer_arguments() -> list[str]:
    """Names of lightning.pytorch.Trainer's arguments, read from its source without importing it."""
    spec = find_spec("lightning")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError("training needs lightning, which is not installed: pip install 'unrolled[train]'")
    source = Path(next(iter(spec.submodule_search_locations))) / "pytorch" / "trainer" / "trainer.py"
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            names = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
            return [name for name in names if name not in ("self", "callbacks", "logger", "default_root_dir")]
    raise ConfigurationError(f"{source}: this version of lightning has another Trainer than expected")


def _first_lines(error: Exception) -> str:
    return "\n".join(str(error).strip().splitlines()[:3])
