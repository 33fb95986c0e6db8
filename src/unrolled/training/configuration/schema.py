"""Signatures of constructors, read from their source files, so that options are checked before torch is imported.

The annotations of a constructor are the schema of its options. They are parsed with `ast` and never imported.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

NUMBERS = {"int": "a whole number", "float": "a number"}
SCALARS = {**NUMBERS, "str": "text", "bool": "true or false", "none": "null"}
LISTS = ("list", "List", "tuple", "Tuple", "Sequence", "Iterable", "Collection", "set", "frozenset")
MAPPINGS = ("dict", "Dict", "Mapping", "MutableMapping")
ANYTHING = ("Any", "object", "TypeVar", "NewType", "ParamSpec")
PLAIN = {"TypedDict", "NamedTuple", "Enum", "StrEnum", "Protocol"}  # classes whose values may be plain data
TEXT = ("Path", "PathLike", "_PATH")  # types whose values are text in a configuration file


@dataclass(frozen=True)
class Kind:
    """One alternative of an annotation: `name` is a scalar type, "list", "mapping", "literal", "object" or "any"."""

    name: str
    items: tuple["Kind", ...] = ()  # of a list, or the values of a mapping; empty for anything
    values: tuple[Any, ...] = ()  # of a literal
    options: str = ""  # of a mapping: the class whose arguments it holds, from Annotated[Mapping[str, Any], Class]

    def fits(self, value: Any) -> bool:
        """Whether a plain value has this type. A dict with `_target_` describes an object."""
        if self.name == "literal":
            return value in self.values
        if isinstance(value, Mapping):
            entries = cast("Mapping[str, Any]", value)
            if self.name == "object":
                return "_target_" in entries
            return self.name == "mapping" and all(fits(self.items, item) for item in entries.values())
        if isinstance(value, (list, tuple)):
            return self.name == "list" and all(fits(self.items, item) for item in cast("list[Any]", value))
        wanted = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,), "none": (type(None),)}
        return type(value) in wanted.get(self.name, ())

    def __str__(self) -> str:
        if self.name == "literal":
            return " or ".join(map(repr, self.values))
        if self.name == "list":
            words = [str(item).removeprefix("a ") for item in _typed(self.items)]
            plurals = " or ".join(word if word == "text" else f"{word}s" for word in words)
            return f"a list of {plurals}, [a,b]" if plurals else "a list, [a,b]"
        return SCALARS.get(self.name) or {"mapping": "a mapping, {key: value}"}.get(self.name, "a class with options")


def fits(kinds: tuple[Kind, ...], value: Any) -> bool:
    """Whether a plain value has one of several types; an empty tuple accepts any value."""
    return not kinds or any(kind.name == "any" or kind.fits(value) for kind in kinds)


def describe(kinds: tuple[Kind, ...]) -> str:
    """Describes several types in words: `a whole number or null`."""
    return " or ".join(dict.fromkeys(str(kind) for kind in _typed(kinds)))


def _typed(kinds: tuple[Kind, ...]) -> list[Kind]:
    """Returns the types to describe, without int beside float, and without classes beside other types."""
    names = {kind.name for kind in kinds}
    shown = [kind for kind in kinds if not (kind.name == "int" and "float" in names)]
    return [kind for kind in shown if kind.name != "object"] or shown


@dataclass(frozen=True)
class Signature:
    """The arguments of a constructor or function, by name; `anything` if it also takes others (`**options`)."""

    target: str
    parameters: Mapping[str, tuple[Kind, ...]]
    anything: bool
    required: frozenset[str] = frozenset()  # those without a default

    def takes(self, name: str) -> bool:
        return self.anything or name in self.parameters


@dataclass(frozen=True)
class _Module:
    name: str
    is_package: bool
    body: tuple[ast.stmt, ...]


@cache
def signature(target: str) -> Signature | None:
    """Returns the signature of a class or function; None if its source is not available."""
    found = _locate(target)
    if found is None:
        return None
    module, node = found
    if isinstance(node, ast.ClassDef):
        return _constructor(target, module, node)
    return _of_function(target, module, node) if isinstance(node, ast.FunctionDef) else None


def fields(target: str) -> Mapping[str, tuple[Kind, ...]]:
    """Returns the annotated fields of a class without a constructor, after those of its bases."""
    found = _class(target)
    if found is None:
        return {}
    inherited = [fields(dotted) for base in reversed(found[1].bases) for dotted in _dotted(base, found[0])]
    return {name: kinds for each in (*inherited, dict(_fields(*found))) for name, kinds in each.items()}


def ancestors(target: str) -> Iterator[str]:
    """Yields the dotted names of a class and its bases, itself first, as far as sources are available."""
    found = _class(target)
    if found:
        module, node = found
        yield f"{module.name}.{node.name}"
        for base in node.bases:
            for dotted in _dotted(base, module):
                yield from ancestors(dotted)


def _class(target: str) -> tuple[_Module, ast.ClassDef] | None:
    found = _locate(target)
    return (found[0], found[1]) if found and isinstance(found[1], ast.ClassDef) else None


def _constructor(target: str, module: _Module, node: ast.ClassDef) -> Signature | None:
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            found = _of_function(target, module, statement)
            inherited = _inherited(target, module, node) if found.anything else None  # **options often go to a base
            more = inherited.parameters if inherited else {}
            return replace(found, parameters={**more, **found.parameters})
    if _is_dataclass(node) or any(_last_name(base) == "NamedTuple" for base in node.bases):
        return Signature(target, fields(target), anything=False)
    return _inherited(target, module, node)


def _is_dataclass(node: ast.stmt | ast.expr) -> bool:
    return isinstance(node, ast.ClassDef) and "dataclass" in _decorators(node)


def _decorators(node: ast.ClassDef | ast.FunctionDef) -> set[str]:
    return {_last_name(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list}


def _inherited(target: str, module: _Module, node: ast.ClassDef) -> Signature | None:
    for base in node.bases:
        for dotted in _dotted(base, module):
            found = signature(dotted)
            if found is not None:
                return replace(found, target=target)
    return None


def _of_function(target: str, module: _Module, node: ast.FunctionDef) -> Signature:
    given = node.args
    named = [a for a in (*given.posonlyargs, *given.args, *given.kwonlyargs) if a.arg != "self"]
    parameters = {a.arg: _kinds(a.annotation, module) if a.annotation else () for a in named}
    optional = len(given.defaults)
    positional = [a.arg for a in (*given.posonlyargs, *given.args)]
    required = {*positional[: len(positional) - optional]} - {"self"}
    required |= {a.arg for a, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None}
    if "flat_options" in _decorators(node):
        parameters = {name: kinds for a in named for name, kinds in _flat(a, parameters[a.arg], module).items()}
    return Signature(target, parameters, given.kwarg is not None, frozenset(required))


def _flat(argument: ast.arg, kinds: tuple[Kind, ...], module: _Module) -> Mapping[str, tuple[Kind, ...]]:
    """Returns the fields of an argument's dataclass, or the argument; see `flat_options`."""
    for dotted in _dotted(argument.annotation, module) if argument.annotation else ():
        found = _locate(dotted)
        if found and _is_dataclass(found[1]):
            return fields(dotted)
    return {argument.arg: kinds}


def _fields(module: _Module, node: ast.ClassDef) -> Iterator[tuple[str, tuple[Kind, ...]]]:
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if _last_name(statement.annotation) != "ClassVar":
            yield statement.target.id, _kinds(statement.annotation, module)


def _kinds(annotation: ast.expr, module: _Module) -> tuple[Kind, ...]:
    """Returns the alternatives of an annotation; `any` if it cannot be parsed."""
    match annotation:
        case ast.Constant(value=None):
            return (Kind("none"),)
        case ast.Constant(value=str(text)):
            return _kinds(ast.parse(text, mode="eval").body, module)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return (*_kinds(left, module), *_kinds(right, module))
        case ast.Subscript(value=outer, slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _subscripted(_last_name(outer), outer, parts, module)
        case ast.Name() | ast.Attribute():
            return _named(annotation, module)
        case _:
            return (Kind("any"),)


def _subscripted(name: str, outer: ast.expr, parts: list[ast.expr], module: _Module) -> tuple[Kind, ...]:
    if name == "Literal":
        return (Kind("literal", values=tuple(p.value for p in parts if isinstance(p, ast.Constant))),)
    if name == "Callable":
        return (Kind("object"),)
    inner = [part for part in parts if not (isinstance(part, ast.Constant) and part.value is Ellipsis)]
    if name in MAPPINGS:
        return (Kind("mapping", items=_kinds(inner[-1], module)),)
    if name == "Annotated":
        owner = next((dotted for dotted in _dotted(inner[1], module) if signature(dotted)), "")
        return tuple(replace(k, options=owner) if k.name == "mapping" else k for k in _kinds(inner[0], module))
    kinds = tuple(dict.fromkeys(kind for part in inner for kind in _kinds(part, module)))
    if name in LISTS:
        return (Kind("list", items=kinds),)
    if name in ("Union", "Optional"):
        return (*kinds, Kind("none")) if name == "Optional" else kinds
    return _named(outer, module)


def _named(annotation: ast.expr, module: _Module) -> tuple[Kind, ...]:
    name = _last_name(annotation)
    if name in SCALARS:
        return (Kind(name),)
    if name in TEXT:
        return (Kind("str"),)
    if name in LISTS or name in MAPPINGS:
        return (Kind("list" if name in LISTS else "mapping"),)
    if name in ANYTHING:
        return (Kind("any"),)
    if name == "Callable":
        return (Kind("object"),)
    for dotted in _dotted(annotation, module):
        found = _locate(dotted)
        if found is None:
            continue
        home, node = found
        if isinstance(node, ast.ClassDef):
            return (Kind("any"),) if {_last_name(base) for base in node.bases} & PLAIN else (Kind("object"),)
        if isinstance(node, ast.expr):  # another name for an annotation
            called = isinstance(node, ast.Call)
            return (Kind("any"),) if called else _kinds(node, home)
    return (Kind("any"),)


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _last_name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _dotted(node: ast.expr, module: _Module) -> Iterator[str]:
    """Yields the dotted names that an expression in a module may refer to."""
    if isinstance(node, ast.Subscript):  # Cell[LSTMState]
        node = node.value
    words = ast.unparse(node).split(".")
    for name, origin in _imports(module):
        if name == words[0]:
            yield ".".join((origin, *words[1:]))
            return
    yield ".".join((module.name, *words))


def _locate(dotted: str) -> tuple[_Module, ast.stmt | ast.expr] | None:
    """Finds the definition of a name: a class, a function, or the value of an alias."""
    words = dotted.split(".")
    for cut in range(len(words) - 1, 0, -1):
        module = _module(".".join(words[:cut]))
        if module is None:
            continue
        return _defined(words[cut], module) if cut == len(words) - 1 else None
    return None


def _defined(name: str, module: _Module) -> tuple[_Module, ast.stmt | ast.expr] | None:
    for statement in _statements(module.body):
        match statement:
            case ast.ClassDef() | ast.FunctionDef() if statement.name == name:
                return module, statement
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                return module, value
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                return module, value
            case _:
                pass
    for imported, origin in _imports(module):
        if imported == name and origin != f"{module.name}.{name}":
            return _locate(origin)
    return None


@cache
def _imports(module: _Module) -> tuple[tuple[str, str], ...]:
    """Returns the names that a module imports, each with its dotted name."""
    found: list[tuple[str, str]] = []
    for statement in _statements(module.body):
        if isinstance(statement, ast.Import):
            for alias in statement.names:  # `import a.b` makes a known, `import a.b as c` makes c stand for a.b
                top = alias.name.partition(".")[0]
                found.append((alias.asname, alias.name) if alias.asname else (top, top))
        elif isinstance(statement, ast.ImportFrom):
            parents = module.name.split(".")
            parents = parents[: len(parents) - statement.level + module.is_package] if statement.level else []
            origin = ".".join((*parents, *([statement.module] if statement.module else [])))
            found += [(alias.asname or alias.name, f"{origin}.{alias.name}") for alias in statement.names]
    return tuple(found)


def _statements(body: tuple[ast.stmt, ...] | list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields the statements of a module, also those within `if TYPE_CHECKING` and `try`."""
    for statement in body:
        yield statement
        if isinstance(statement, (ast.If, ast.Try)):
            yield from _statements(statement.body)
            yield from _statements(statement.orelse)


@cache
def _module(name: str) -> _Module | None:
    """Parses a module. Its file is found from its top-level package, which `find_spec` does not import."""
    top, *rest = name.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    paths = [Path(folder, *rest) for folder in folders]
    if spec and not folders and not rest and spec.origin:  # a single file
        paths = [Path(spec.origin).with_suffix("")]
    for path in paths:
        for source, is_package in ((path / "__init__.py", True), (path.with_name(f"{path.name}.py"), False)):
            if source.is_file():
                stub = source.with_suffix(".pyi")  # where a package with lazy names lists them
                files = [source, *([stub] if is_package and stub.is_file() else [])]
                body = [statement for file in files for statement in ast.parse(file.read_text(encoding="utf-8")).body]
                return _Module(name, is_package, tuple(body))
    return None
