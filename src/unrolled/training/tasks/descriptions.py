"""Checks of the descriptions that checkpoints store."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from torch import nn

from unrolled.wording import article


def check_loadable(network: Mapping[str, Any]) -> None:
    """Checks that a network's description is plain data, which `load_bundle` can build without a task's package.

    Raises:
        ValueError: a module, a value that is not plain data, or a class of a task's package.
    """
    if isinstance(network, nn.Module):
        raise ValueError("network: give its description (a dict), not a module; checkpoints store the description")
    _check_plain(network, "network")
    for target in class_names(network):
        if target.startswith("unrolled_tasks."):
            raise ValueError(
                f"network: {target} is defined in a task's package, so a project that has only `unrolled` could not "
                "load it; move modules with parameters to a package outside unrolled_tasks"
            )


def _check_plain(value: Any, path: str) -> None:
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[str, Any]", value).items():
            _check_plain(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(cast("Sequence[Any]", value)):
            _check_plain(item, f"{path}[{index}]")
    elif value is not None and not isinstance(value, (str, int, float, bool)):
        raise ValueError(f"{path}: a checkpoint contains plain data only, not {article(type(value).__name__)}")


def class_names(value: Any) -> Iterable[str]:
    """Yields the names of the classes in a description."""
    if isinstance(value, Mapping):
        entries = cast("Mapping[str, Any]", value)
        if "_target_" in entries:
            yield entries["_target_"]
        value = list(entries.values())
    if isinstance(value, (list, tuple)):
        for item in cast("Sequence[Any]", value):
            yield from class_names(item)
