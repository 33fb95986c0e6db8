# pyright: reportPrivateUsage=false
# OmegaConf tells interpolations and null apart from others by methods with an underscore alone.
"""Checks that the key of an override is an option of a file or an argument of a constructor."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig

from unrolled.training.configuration.options import ConfigurationError, trainer_arguments
from unrolled.training.configuration.renamed import renamed
from unrolled.training.configuration.schema import Kind, Signature, signature

FILLED_IN = ("hydra", "sizes", "choices")  # top-level keys that the run fills in
COMPLETED: Mapping[str, tuple[str, ...]] = {  # optional arguments that the run or the network passes itself
    "data": ("processor_from",),
    "data.modality.features": ("centers", "scales"),
    "decoder": ("source_size",),
    "model": ("bidirectional",),
    "model.cell": ("output_size",),
    "task": ("network", "processor", "optimizer", "schedule"),
}


class _Place(NamedTuple):
    """A node of the configuration: its path, its content in the files, and the signature that takes its options."""

    path: str
    node: Any
    made: Signature | None = None
    kinds: tuple[Kind, ...] = ()  # of the argument that the node is passed as

    def present(self) -> list[str]:
        """Returns the keys in the files; `in node` itself is false for a missing value (???)."""
        node = self.node
        return list(map(str, node)) if isinstance(node, DictConfig) and not node._is_none() else []

    def arguments(self) -> list[str]:
        """Returns the arguments of the constructor, without those that complete it."""
        if self.path == "trainer":
            return trainer_arguments()
        if self.made is None:
            return []
        completed = (*COMPLETED.get(self.path, ()), *self.made.required)
        return [name for name in self.made.parameters if name not in completed]

    def options(self) -> list[str]:
        """Returns all keys that an override may set."""
        hidden = () if self.path else FILLED_IN
        found = [key for key in self.present() if not key.startswith("_") and key not in hidden]
        return list(dict.fromkeys([*found, *self.arguments()]))

    def is_open(self) -> bool:
        """Whether other keys are accepted with a plus: for **options, or without the source of the constructor."""
        return self.made.anything if self.made else "_target_" in self.present()

    def holds_anything(self) -> bool:
        """Whether any key is accepted: options of another library, or a mapping without keys in the files."""
        free = any(kind.name in ("mapping", "any") and not kind.options for kind in self.kinds)
        return self.path.endswith("_options") or (free and not self.present())

    def below(self, key: str) -> "_Place":
        """Returns the node of a key."""
        kinds = self.made.parameters.get(key, ()) if self.made else ()
        node = self.node._get_node(key) if key in self.present() else None
        named = str(node["_target_"]) if isinstance(node, DictConfig) and "_target_" in node else ""
        named = named or next((kind.options for kind in kinds if kind.options), "")
        path = f"{self.path}.{key}" if self.path else key
        return _Place(path, node, signature(named) if named else None, kinds)


def check_key(override: Override, config: DictConfig) -> None:
    """Checks that the key of an override exists.

    Args:
        override: the parsed override.
        config: the configuration composed from the chosen files.

    Raises:
        ConfigurationError: the key does not exist; the message has the nearest key and the list of keys.
    """
    path = override.key_or_group.split(".")
    place = _Place("", config)
    for depth, key in enumerate(path):
        if isinstance(place.node, ListConfig) and key.isdigit() and int(key) < len(place.node):
            place = _Place(f"{place.path}.{key}", place.node._get_node(int(key)))
            continue
        if place.node is not None and place.node._is_interpolation():
            raise ConfigurationError(f"{override.input_line}: {_elsewhere(place, path[depth:])}")
        if place.holds_anything():
            return
        known = place.present() if override.is_delete() else [*place.present(), *place.arguments()]
        if key not in known and not (place.is_open() and override.is_add()):
            raise ConfigurationError(f"{override.input_line}: {_answer(place, key, override)}")
        place = place.below(key)


def _elsewhere(place: _Place, rest: Sequence[str]) -> str:
    raw = str(place.node._value())
    plain = re.fullmatch(r"\$\{([\w.]+)\}", raw)
    remedy = f"write {'.'.join((plain[1], *rest))}=…" if plain else "give the option there"
    return f"{place.path} is {raw}; {remedy}"


def _answer(place: _Place, key: str, override: Override) -> str:
    where = place.path
    if new := renamed(override.key_or_group):
        return new
    if isinstance(place.node, ListConfig):
        return f"{where} is a list, it has no {key!r}"
    if place.made is None and (not isinstance(place.node, DictConfig) or place.node._is_none()):
        return f"{where} is a single value, it has no {key!r}"
    if place.made and key in place.made.parameters and not override.is_delete():
        return f"{where}.{key} is given by what uses {where}"
    allowed = [name for name in place.options() if name in place.present() or not override.is_delete()]
    if not allowed:
        return f"what was chosen by {where.replace('.', '/')}=… takes no options"
    near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.6)
    prefix = f"{where}." if where else ""
    hint = f"; did you mean {prefix}{near[0]}?" if near else ""
    more = f"\nAn argument of another name takes a plus: +{prefix}{key}=…" if place.is_open() and not near else ""
    said = f"{where} has no {key!r}" if where else f"there is no {key!r}"
    return f"{said}{hint}\nKeys of {where or 'the configuration'}: {', '.join(sorted(allowed))}{more}"
