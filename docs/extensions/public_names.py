"""The directive `public-names`: the documentation of all public names that one package of `unrolled` defines.

    :::{public-names} unrolled unrolled.cells
    :::

The first argument is the package that offers the names, the second the one that defines them.
"""

import inspect
import re
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from unrolled.lazy import modules_of_names


def defined_in(package: str, room: str) -> list[str]:
    """Return the public names of a package that one of its rooms defines, in the order of their modules."""
    init = str(import_module(package).__file__)
    where = modules_of_names(init)
    return [name for name in where if f"{where[name]}.".startswith(f"{room}.")]


class PublicNames(SphinxDirective):
    """Insert the documentation of the names, parsed as reStructuredText, which docstrings are written in."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        package, room = self.arguments
        lines = [line for name in defined_in(package, room) for line in _directive(package, name)]
        if not lines:
            raise self.error(f"{room} defines no public name of {package}")
        return self.parse_text_to_nodes("\n".join(["```{eval-rst}", *lines, "```"]))


def _directive(package: str, name: str) -> list[str]:
    value = getattr(import_module(package), name)
    kind = "class" if inspect.isclass(value) else "function" if callable(value) else "data"
    return [f".. auto{kind}:: {package}.{name}", ""]


def _plain(app: Sphinx, kind: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Escape what reStructuredText takes for markup; docstrings use backticks alone."""
    for number, line in enumerate(lines):
        code = re.split(r"(`[^`]*`)", line)
        code[::2] = [re.sub(r"([*|])", r"\\\1", text) for text in code[::2]]
        lines[number] = re.sub(r"`(?=s\b)", r"`\\ ", "".join(code))  # the plural of a name


def _skipped(app: Sphinx, kind: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out fields of named tuples, which the docstring of the class describes, and classes by another name.

    Methods that scikit-learn adds to estimators are left out, too.
    """
    field = str(value.__doc__).startswith("Alias for field number")
    added = str(getattr(value, "__module__", "")).startswith("sklearn.")
    return True if field or added or (inspect.isclass(value) and value.__name__ != name) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.connect("autodoc-process-docstring", _plain, priority=100)  # before napoleon, which adds markup
    app.connect("autodoc-skip-member", _skipped)  # autodoc has no option for fields and other names
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
