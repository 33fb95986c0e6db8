"""Lazy imports: a package's names are imported on first use. They are listed in the stub file beside `__init__.py`."""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def modules_of_names(init: str) -> dict[str, str]:
    """Return each public name with the module that defines it, from the stub beside an `__init__.py`."""
    stub = ast.parse(Path(init).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def attach(package: str, init: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return the `__getattr__`, `__dir__` and `__all__` of a package whose names are imported on first use.

    Args:
        package: the package's name.
        init: the package's `__file__`.
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
