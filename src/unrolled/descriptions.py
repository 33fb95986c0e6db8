"""Descriptions of networks and transforms as plain data, and the objects that are built from them.

A file may name any class. What a reader trusts is decided by prefixes of modules (`TRUSTED`), and only networks and
transforms can be built.
"""

import difflib
import functools
import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, cast

from torch import nn

from unrolled.processing.transform import Transform

TRUSTED = ("unrolled.", "torch.nn.")
_BUILT_FROM = "_built_from"  # attribute of a network that `build` made: its description


class CheckpointError(ValueError):
    """A file that isn't a checkpoint of this package, or that can't be loaded."""


def build(description: Any, *, trusted: Sequence[str] | None = None) -> Any:
    """Build an object from a plain description, `{"_target_": "package.Class", **arguments}`, which may be nested.

    With `"_partial_": True` the result is a `functools.partial`. Lists and dicts without `_target_` are built item by
    item. Other values are returned unchanged.

    Args:
        description: plain dicts, lists, strings, numbers.
        trusted: prefixes of modules, each ending in a dot, whose nn.Module and Transform subclasses are allowed as
            targets. None allows every target, which is meant for descriptions that you wrote yourself.

    Raises:
        CheckpointError: an untrusted or unknown target.
        ValueError: invalid arguments of the target.
    """
    if isinstance(description, Mapping):
        parts = cast("Mapping[str, Any]", description)
        built = {k: build(v, trusted=trusted) for k, v in parts.items() if k not in ("_target_", "_partial_")}
        if "_target_" not in parts:
            return built
        target = locate(parts["_target_"], trusted=trusted)
        _check_arguments(parts["_target_"], target, built, partial=bool(parts.get("_partial_", False)))
        if parts.get("_partial_", False):
            return functools.partial(target, **built)
        made = target(**built)
        if isinstance(made, nn.Module):
            setattr(made, _BUILT_FROM, dict(parts))
        return made
    if isinstance(description, (list, tuple)):
        return [build(item, trusted=trusted) for item in cast("Sequence[Any]", description)]
    return description


def describe(network: nn.Module) -> dict[str, Any]:
    """Return the description from which `build` made a network.

    Raises:
        ValueError: a network that was made in another way.
    """
    found = getattr(network, _BUILT_FROM, None)
    if found is None:
        name = type(network).__name__
        raise ValueError(
            f"this {name} has no description, which a file needs to build it again: create it with unrolled.build("
            f"{{'_target_': 'unrolled.{name}', …}}), or pass its description"
        )
    return found


def _check_arguments(name: str, target: Any, given: Mapping[str, Any], *, partial: bool) -> None:
    try:
        signature = inspect.signature(target)
    except ValueError:  # some callables written in C have no signature; calling them raises the error
        return
    takes = signature.parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values()):
        for argument in given:
            if argument not in takes:
                near = difflib.get_close_matches(argument, takes, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"{name} takes no {argument!r}{hint} It takes {', '.join(takes)}")
    try:
        signature.bind_partial(**given) if partial else signature.bind(**given)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None


def locate(name: str, *, trusted: Sequence[str] | None = None) -> Any:
    """Import the class or function with a dotted name; see `build` for `trusted`."""
    if trusted is not None and not name.startswith(tuple(trusted)):
        raise CheckpointError(
            f"it names {name}, which is outside the trusted modules ({', '.join(trusted)}); if you trust the file, add "
            f"the package: trusted={(*trusted, name.split('.')[0] + '.')!r}"
        )
    found = _import(name)
    if trusted is not None:
        home = f"{getattr(found, '__module__', '')}."
        allowed = inspect.isclass(found) and issubclass(found, (nn.Module, Transform))
        if not allowed or not home.startswith(tuple(trusted)):
            raise CheckpointError(f"it names {name}, which is not a network or transform class of a trusted module")
    return found


def _import(name: str) -> Any:
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            found: Any = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
                continue  # this prefix isn't a module; a shorter one may be
            raise CheckpointError(
                f"{name}: importing it needs {error.name}, which is not installed ({error})"
            ) from None
        try:
            return functools.reduce(getattr, parts[cut:], found)
        except AttributeError as error:
            raise CheckpointError(f"{name}: {error}") from None
    raise CheckpointError(f"{name}: there is no module {parts[0]!r} here; is the package installed?")
