"""Options as dataclasses, one a concern, which a configuration and a caller give as flat arguments."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, get_type_hints


def flat_options(init: Callable[..., None]) -> Callable[..., None]:
    """Lets a constructor that takes dataclasses of options be called with their fields as well.

    `Data(batching=Batching(batch_size=8))` and `Data(batch_size=8)` are the same. Fields that are not given keep the
    values of the argument's default. A field of several dataclasses, such as `seed`, goes to each of them. The
    signature lists the fields in place of the dataclasses, and `schema.signature` reads the same from the source.

    Args:
        init: a constructor with keyword arguments; those annotated with a dataclass have a default instance.
    """
    hints = get_type_hints(init)
    taken = inspect.signature(init).parameters
    groups = {name: each.default for name, each in taken.items() if dataclasses.is_dataclass(hints.get(name))}

    names = [name for name, each in taken.items() if each.kind is each.POSITIONAL_OR_KEYWORD][1:]

    @wraps(init)
    def grouped(self: Any, *values: Any, **given: Any) -> None:
        if len(values) > len(names):
            raise TypeError(f"{type(self).__name__} takes {len(names)} arguments by position, got {len(values)}")
        given = {**dict(zip(names, values, strict=False)), **given}
        used: set[str] = set()
        for name, default in groups.items():
            if name not in given:
                own = {field: given[field] for field in _fields(default) if field in given}
                given[name] = dataclasses.replace(default, **own)
                used |= set(own)
        init(self, **{name: value for name, value in given.items() if name in taken or name not in used})

    flat: dict[str, inspect.Parameter] = {}
    for name, each in taken.items():
        fields = _fields(groups[name]) if name in groups else {}
        added = [each.replace(name=field, default=value, annotation=Any) for field, value in fields.items()]
        flat |= {one.name: one for one in added or [each]}
    grouped.__signature__ = inspect.Signature(list(flat.values()))  # type: ignore[attr-defined]  # read by inspect.signature
    return grouped


def check_names(name: str, options: Mapping[str, Any], target: Callable[..., Any]) -> None:
    """Checks that a mapping has only names of a class's optional arguments.

    Raises:
        ValueError: an unknown name, or not a mapping.
    """
    allowed = [each.name for each in inspect.signature(target).parameters.values() if each.default is not each.empty]
    if not isinstance(options, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} is {options!r}, expected {', '.join(allowed)} by name")
    unknown = [option for option in options if option not in allowed]
    if unknown:
        raise ValueError(f"{name} has no {unknown[0]!r}; it takes {', '.join(allowed)}")


def _fields(options: Any) -> Mapping[str, Any]:
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
