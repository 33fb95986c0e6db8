"""Names of a package that load on first use, listed once: in the stub file beside its `__init__.py`."""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def modules_of_names(init: str) -> dict[str, str]:
    """Each public name and the module that defines it, as the stub beside an `__init__.py` imports them."""
    stub = ast.parse(Path(init).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def attach(package: str, init: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What makes a package lazy: its `__getattr__`, `__dir__` and `__all__`.

    Args:
        package: its name.
        init: its `__file__`.
    """
    modules = modules_of_names(init)
    public = sorted(modules)

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it offers {', '.join(public)}")
        value = getattr(import_module(modules[name]), name)
        setattr(import_module(package), name, value)
        return value

    return load, lambda: sorted({*vars(import_module(package)), *public}), public
