"""The page of --help: the choices of each group, with data and experiments listed by task."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.default_element import GroupDefault
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from unrolled.training.configuration.options import packages_of
from unrolled.training.configuration.overrides import config_folder
from unrolled.training.configuration.schema import signature


def help_text(config_name: str, config_dir: str | None = None) -> str:
    """Returns the help page of a command.

    Args:
        config_name: `train` or `evaluate`.
        config_dir: an additional folder of configuration files (--config-dir).
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        page = compose(config_name, return_hydra_config=True)
        whole = OmegaConf.select(page, "hydra.help")
        files = _Files(config_dir)
        chosen = {str(group) for group in page.hydra.runtime.choices if not str(group).startswith("hydra/")}
        groups = chosen | files.groups_of_tasks() if "model" in chosen else chosen  # an evaluation builds no network
        lines = [line for group in sorted(groups) for line in files.lines(group)]
    GlobalHydra.instance().clear()
    return f"{whole.header}\nChoices (group=choice):\n\n{chr(10).join(lines)}\n\n{whole.footer}"


class _Files:
    """The configuration files of all groups, without composition."""

    def __init__(self, config_dir: str | None) -> None:
        self._loader: Any = GlobalHydra.instance().config_loader()
        if config_dir is not None:
            path = self._loader.get_search_path()
            path.append(provider="command-line", path=f"file://{Path(config_dir).resolve()}")
            self._loader.repository.initialize_sources(path)
        self._tasks = {name: packages_of(self._target("task", name)) for name in self._names("task")}

    def groups_of_tasks(self) -> set[str]:
        """Returns the groups in the defaults lists of tasks, such as attention."""
        found = (self._loader.repository.load_config(f"task/{name}") for name in self._names("task"))
        entries = [
            entry for one in found if one for entry in one.defaults_list or () if isinstance(entry, GroupDefault)
        ]
        return {str(entry.group).removeprefix("/") for entry in entries}

    def lines(self, group: str) -> Iterator[str]:
        """Yields a line with a group's choices, or one line for each task."""
        if group == "data":
            yield "data, by task:"
            yield from self._by_task({name: self._readers(name) for name in self._names("data")})
        elif group == "experiment":
            yield "experiment, by task:"
            folders = sorted(self._loader.list_groups("experiment"))
            for folder in folders:
                yield f"  {folder}: {', '.join(f'{folder}/{name}' for name in self._names(f'experiment/{folder}'))}"
            if own := self._names("experiment"):
                yield f"  {', '.join(own)}"
        else:
            yield f"{group}: {', '.join(self._names(group))}"

    def _by_task(self, readers: dict[str, set[str]]) -> Iterator[str]:
        for package in sorted(set[str]().union(*self._tasks.values())):
            tasks = sorted(task for task, own in self._tasks.items() if package in own)
            names = [n for n, found in readers.items() if package in found and n not in self._tasks and self._whole(n)]
            default = next(iter(self._bases(package)), "") if package in self._tasks else ""
            shown = [f"{name} (default)" if name == default else name for name in names]
            yield f"  {', '.join(tasks)}: {', '.join(shown)}"
        others = [name for name, found in readers.items() if not found and name not in self._tasks]
        if others:
            yield f"  others: {', '.join(others)}"

    def _readers(self, name: str) -> set[str]:
        return packages_of(self._target("data", name, "problem") or self._target("data", name))

    def _whole(self, name: str) -> bool:
        """Whether a file gives all required arguments; base files of other files may not."""
        made = signature(self._target("data", name))
        return made is None or made.required <= self._keys("data", name)

    def _names(self, group: str) -> list[str]:
        return sorted(self._loader.get_group_options(group))

    def _target(self, group: str, name: str, key: str | None = None) -> str:
        """Returns the class of a file or of a node within it, from the file or from those that it builds on."""
        content = self._content(group, name)
        node = content.get(key or "task") if key or group == "task" else content
        own = node.get("_target_") if isinstance(node, DictConfig) else None
        below = (self._target(group, base, key) for base in self._bases(name, group))
        return str(own) if own else next((target for target in below if target), "")

    def _keys(self, group: str, name: str) -> set[str]:
        below = (self._keys(group, base) for base in self._bases(name, group))
        return {str(key) for key in self._content(group, name)}.union(*below)

    def _bases(self, name: str, group: str = "data") -> list[str]:
        """Returns the files of the same group, or of a folder in it, in a file's defaults list."""
        found = self._loader.repository.load_config(f"{group}/{name}")
        entries = [entry for entry in found.defaults_list or () if not entry.is_self()] if found else []
        listed = [str(getattr(entry, "path", entry.get_name())) for entry in entries]
        return [base for base in listed if "/" in base or base in self._names(group)]

    def _content(self, group: str, name: str) -> DictConfig:
        found = self._loader.repository.load_config(f"{group}/{name}")
        return found.config if found is not None and isinstance(found.config, DictConfig) else OmegaConf.create({})
