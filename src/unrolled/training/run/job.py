# pyright: reportPrivateUsage=false
# OmegaConf distinguishes interpolations from others only by private methods.
"""A composed run as text: what rank 0 passes to the other processes, and what starts as a process of its own."""

import logging.config
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from unrolled.training.configuration.options import ConfigurationError

# Resolvers whose values differ between processes. Others, such as oc.select, depend on the configuration alone.
_OF_PROCESS = re.compile(r"\$\{(now|hydra|oc\.env):")
# Keys that rank 0 sets: the folder may depend on the time, and a restarted run resumes.
_SET_BY_RANK_0 = ("run_dir", "resume", "init_from", "launch")


class Job(NamedTuple):
    """A run that needs no further composition."""

    config: DictConfig
    arguments: Sequence[str] = ()  # of the command line that it was composed from
    logging: Mapping[str, Any] = {}  # for `logging.config.dictConfig`; empty: Python's default

    @classmethod
    def of(cls, config: DictConfig, arguments: Sequence[str]) -> "Job":
        """Returns the job of a configuration that Hydra or `compose` has composed."""
        fix(config)
        if not HydraConfig.initialized():
            return cls(config, arguments)
        given = OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
        return cls(config, arguments, cast("dict[str, Any]", given))

    def to_text(self) -> str:
        """Returns the job as YAML."""
        settings = OmegaConf.to_container(self.config, resolve=False)
        return OmegaConf.to_yaml({"arguments": list(self.arguments), "logging": dict(self.logging), "config": settings})

    @classmethod
    def from_text(cls, text: str) -> "Job":
        """Reads what `to_text` returned."""
        content = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.create(text), resolve=False))
        config = cast("DictConfig", OmegaConf.create(content["config"]))
        OmegaConf.set_struct(config, True)
        return cls(config, content["arguments"], content["logging"])

    def start_logging(self, process: str) -> None:
        """Logs as Hydra does. Processes with a name, which are not rank 0, write own files, and print warnings only."""
        handlers = {name: dict(handler) for name, handler in self.logging.get("handlers", {}).items()}
        for handler in handlers.values():
            path = Path(handler.get("filename", ""))
            if path.name:
                path.parent.mkdir(parents=True, exist_ok=True)
                name = f"{path.stem}-{process.replace(' ', '-')}{path.suffix}" if process else path.name
                handler["filename"] = str(path.with_name(name))
            elif process:
                handler["level"] = "WARNING"
        if self.logging:
            logging.config.dictConfig({**self.logging, "handlers": handlers})


def fix(config: DictConfig) -> None:
    """Replaces interpolations that would differ between processes, such as the time, by their values."""
    with open_dict(config):
        for node, key in list(_of_process(config)):
            node[key] = node[key]


def check_same(own: DictConfig, other: DictConfig) -> None:
    """Checks that this process composed the configuration of rank 0.

    Raises:
        ConfigurationError: names the first difference.
    """
    flat = [{key: value for key, value in flatten(each).items() if key not in _SET_BY_RANK_0} for each in (own, other)]
    if difference := first_difference(flat[0], flat[1]):
        raise ConfigurationError(difference)


def first_difference(own: Mapping[str, Any], first: Mapping[str, Any], name: str = "this process") -> str:
    """Returns a message on the first difference between a process and rank 0; empty if there is none."""
    for key in dict.fromkeys([*first, *own]):
        if own.get(key) != first.get(key):
            return (
                f"{key} is {own.get(key)!r} in {name} and {first.get(key)!r} in rank 0; start all processes with "
                "the same command, files and versions"
            )
    return ""


def flatten(config: DictConfig, *, resolve: bool = False) -> dict[str, Any]:
    """Returns the values of a configuration by dotted key."""
    return dict(_flat(OmegaConf.to_container(config, resolve=resolve), ""))


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (dict, list)) and value:
        whole = cast("dict[Any, Any] | list[Any]", value)
        for key, each in whole.items() if isinstance(whole, dict) else enumerate(whole):
            yield from _flat(each, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _of_process(node: DictConfig | ListConfig) -> Iterator[tuple[Any, Any]]:
    """Yields each node and key whose value is an interpolation with a resolver of `_OF_PROCESS`."""
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        child: Any = node._get_node(key)
        if child is None:
            continue
        if child._is_interpolation():
            if _OF_PROCESS.search(child._value()):
                yield node, key
        elif isinstance(child, (DictConfig, ListConfig)) and not child._is_none() and not child._is_missing():
            yield from _of_process(child)
