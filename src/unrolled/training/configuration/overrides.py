# pyright: reportPrivateUsage=false
# OmegaConf distinguishes missing values and interpolations from others only by private methods.
"""Checks of overrides against the YAML files, before torch or lightning is imported.

For a misspelt key, Hydra proposes `+key`, which has no effect. Here a key must exist in the composed configuration, or
be an argument of the constructor that it is passed to.
"""

import difflib
import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import unrolled
from unrolled.training.configuration.keys import check_key
from unrolled.training.configuration.options import ConfigurationError as ConfigurationError
from unrolled.training.configuration.options import (
    check_choices_are_used,
    check_options,
    check_task_of_data,
    drop,
    leftovers,
)

OVERLAYS = ("experiment", "debug")  # groups whose files give options to others
MOST_SWEPT = 256  # combinations of a sweep that are looked at before the first one runs


def config_folder() -> Path:
    """Returns the folder of the YAML files: in the installed package, or at the top level of a working copy."""
    spec = find_spec(f"{unrolled.__name__}.conf")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent
    raise ConfigurationError("unrolled's configuration files are missing from this installation; install it again")


def check_overrides(
    config_name: str, overrides: Sequence[str], config_dir: str | None = None, *, sweep: bool = False
) -> list[str]:
    """Checks that overrides name existing keys and choices, and that their values have the right types.

    Args:
        config_name: the primary configuration, `train` or `evaluate`.
        overrides: as typed, `key=value`.
        config_dir: an additional folder of configuration files (--config-dir).
        sweep: several values start several runs (-m).

    Returns:
        The options that `dropped_options` finds for the last of these runs.

    Raises:
        ConfigurationError: one line on the mistake and one on the remedy.
    """
    parser = OverridesParser.create()
    parsed = [_parsed(text, parser, sweep=sweep) for text in overrides]
    searched = [o for o in parsed if o.key_or_group.startswith("hydra.searchpath")]
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigurationError(f"--config-dir {config_dir}: no such folder")
        searched = [parser.parse_override(f"hydra.searchpath=[{Path(config_dir).resolve()}]")]
    dropped: list[str] = []
    for one in _expand_sweeps(parsed):
        dropped = _check_one(config_name, one, searched)
    return dropped


def dropped_options(config_name: str, overrides: Sequence[str]) -> list[str]:
    """Returns an experiment's options for choices that were replaced by ones which don't take them.

    They are dropped together with their choice, such as warmup in `experiment=char_lm/tiny_shakespeare scheduler=none`.
    Call it within a run that Hydra has started.
    """
    parser = OverridesParser.create()
    loader = GlobalHydra.instance().config_loader()
    groups = [o for o in parser.parse_overrides(list(overrides)) if _is_group(o, loader)]
    return _dropped(config_name, groups, [])


def forced(argument: str) -> str:
    """Returns a checked argument in the form that sets a key whether or not a file contains it (`++`).

    Choices, command-line options and keys of Hydra are returned unchanged.
    """
    key = argument.lstrip("+")
    path, given, _ = key.partition("=")
    option = "." in path and not (set("-~/@") & set(path) or path.startswith("hydra."))
    return f"++{key}" if given and (option or argument != key) else argument


def quoted(key: str, value: str) -> str:
    """Returns an override of a value with any characters, quoted for a shell."""
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # or else an interpolation
    escaped = re.sub(r'(\\+)(?="|$)', r"\1\1", escaped).replace('"', r"\"")
    return shlex.quote(f'{key}="{escaped}"')


def _parsed(text: str, parser: OverridesParser, *, sweep: bool) -> Override:
    key, given, value = text.partition("=")
    if not given and not text.startswith("~"):
        raise ConfigurationError(f"{text}: not an override; write key=value")
    try:
        override = parser.parse_override(text)
    except HydraException:
        raise ConfigurationError(
            f"{text}: some of these characters mean something to Hydra; as they stand they are typed\n"
            f"{quoted(key, value)}"
        ) from None
    if override.is_sweep_override() and not sweep:
        raise ConfigurationError(
            f"{text}: several values start several runs, with -m; for one value with these characters type\n"
            f"{quoted(key, value)}"
        )
    return override


def _expand_sweeps(parsed: Sequence[Override]) -> Iterator[list[Override]]:
    """Yields every combination of a sweep, up to a limit, of an interval its ends; a single run is one combination."""
    parser = OverridesParser.create()
    choices: list[list[Override]] = []
    for override in parsed:
        if override.is_sweep_override() and (override.is_choice_sweep() or override.is_range_sweep()):
            values = list(itertools.islice(override.sweep_string_iterator(), MOST_SWEPT))
            choices.append(parser.parse_overrides([f"{override.get_key_element()}={value}" for value in values]))
        elif override.is_interval_sweep():
            value: Any = override.value()
            ends = (value.start, value.end)
            choices.append(parser.parse_overrides([f"{override.get_key_element()}={end}" for end in ends]))
        elif not override.is_sweep_override():
            choices.append([override])
    for combination in itertools.islice(itertools.product(*choices), MOST_SWEPT):
        yield list(combination)


def _check_one(config_name: str, overrides: list[Override], searched: list[Override]) -> list[str]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        groups = [o for o in overrides if not o.key_or_group.startswith("hydra") and _is_group(o, loader)]
        extra = [o.input_line for o in searched if o.input_line]
        try:
            with_choices = compose(config_name, [*extra, *_lines(groups)])
        except HydraException as error:
            raise ConfigurationError(_explain_choice(str(error), groups, loader)) from None
        dropped = _dropped(config_name, groups, extra)
        drop(with_choices, dropped)
        keys = [o for o in overrides if o not in groups and not o.key_or_group.startswith("hydra")]
        for override in keys:
            check_key(override, with_choices)
        try:
            composed = compose(config_name, [*extra, *_lines(groups), *map(forced, _lines(keys))])
            drop(composed, dropped)
            _refuse_missing(composed)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigurationError(_first_lines(error)) from None
        check_options(composed)
        check_choices_are_used(composed, [(o.key_or_group, str(o.value())) for o in groups])
        if config_name != "evaluate":  # whose task is the checkpoint's
            check_task_of_data(composed)
    GlobalHydra.instance().clear()
    return dropped


def _dropped(config_name: str, groups: Sequence[Override], extra: Sequence[str]) -> list[str]:
    """Returns the options to drop, by comparison with the same choices composed without overlays."""
    chosen = [o.key_or_group.replace("/", ".") for o in groups if o.key_or_group not in OVERLAYS]
    if not chosen or not any(o.key_or_group in OVERLAYS for o in groups):
        return []
    whole = compose(config_name, [*extra, *_lines(groups)], return_hydra_config=True)
    choices = {str(k): v for k, v in whole.hydra.runtime.choices.items() if not str(k).startswith("hydra/")}
    base = [f"{group}={choice}" for group, choice in choices.items() if choice is not None and group not in OVERLAYS]
    return leftovers(whole, compose(config_name, [*extra, *base]), chosen)


def _is_group(override: Override, loader: Any) -> bool:
    return bool(loader.list_groups(override.key_or_group) or loader.get_group_options(override.key_or_group))


def _lines(overrides: Iterable[Override]) -> list[str]:
    return [o.input_line for o in overrides if o.input_line is not None]


def _explain_choice(message: str, groups: Sequence[Override], loader: Any) -> str:
    """Returns Hydra's message about a missing choice, shortened, with the nearest name."""
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
    for folder in (each for each in loader.list_groups(group) if each != "base"):  # what others build on
        yield from (f"{folder}/{name}" for name in loader.get_group_options(f"{group}/{folder}"))


def _refuse_missing(config: DictConfig) -> None:
    missing = next(_missing(config, ""), None)
    if missing:
        raise ConfigurationError(f"{missing} has no default: add {missing}=…")


def _missing(node: DictConfig, prefix: str) -> Iterator[str]:
    """Yields keys with the value ???. Interpolations are not followed: some are known only in a run."""
    for key in node:
        child = node._get_node(key)
        if OmegaConf.is_missing(node, key):
            yield f"{prefix}{key}"
        elif isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            yield from _missing(child, f"{prefix}{key}.")


def _first_lines(error: Exception) -> str:
    return "\n".join(str(error).strip().splitlines()[:3])
