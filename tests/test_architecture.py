"""The rooms of the package: imports go downward, the core needs torch alone, names are what they promise."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest

import unrolled
import unrolled.deployment
import unrolled.training
import unrolled.training.estimators
import unrolled.training.run
from unrolled.lazy import modules_of_names

SOURCE = Path(unrolled.__file__).resolve().parent
TASKS = SOURCE.parents[1] / "tasks" / "unrolled_tasks"
FILES = sorted(SOURCE.rglob("*.py"))

# A module may import modules of its own level or of a lower one, as long as no circle comes of it.
LEVELS = [
    {"durable", "lazy", "modes", "shapes", "state", "sequences", "resets", "wording"},
    {"losses", "cells", "heads", "processing"},
    {"backends"},
    {"layers"},
    {"models"},
    {"generation", "inspection"},
    {"checkpoint", "descriptions", "pretrained"},
    {"deployment"},
    {"training", "__main__"},
]
TRAINING_LEVELS = [{"console", "configuration"}, {"data"}, {"callbacks"}, {"tasks"}, {"run"}, {"estimators"}]
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
TRAINING_ONLY = {"lightning", "hydra", "omegaconf", "torchmetrics", "datasets", "numpy", "matplotlib", "unrolled_tasks"}
RUN_ELSEWHERE = {"unrolled.deployment.export.onnx.beam_search"}  # copied for users, and imported by nothing here
HEAPS = {"utils", "util", "helpers", "common", "misc", "registry"}


def room(module: str) -> str | None:
    """`unrolled.cells.lstm` -> cells; None for the package itself and for everything outside."""
    parts = module.split(".")
    return parts[1] if parts[0] == "unrolled" and len(parts) > 1 else None


def module_of(path: Path) -> str:
    parts = ("unrolled", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """All modules that a file imports anywhere in it, lazily or not."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            # `from unrolled import cells` names a module where it looks like a name.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


INSIDE = [path for path in FILES if path != SOURCE / "__init__.py"]


def test_the_configuration_is_part_of_the_package_and_its_neighbours_are_not() -> None:
    assert (files("unrolled.conf") / "train.yaml").is_file()
    # What a checkpoint may name begins with "unrolled.": nothing but the package itself may answer to that.
    assert list(unrolled.__path__) == [str(SOURCE)]
    for neighbour in ("tests", "tasks", "benchmarks", "train"):
        assert importlib.util.find_spec(f"unrolled.{neighbour}") is None


def test_there_is_something_to_look_at() -> None:
    assert len(INSIDE) > 10
    assert sum(room(name) is not None for path in INSIDE for name in imports(path)) > 20


@pytest.mark.parametrize("path", INSIDE, ids=module_of)
def test_imports_go_downward_only(path: Path) -> None:
    own = room(module_of(path))
    assert own in LEVEL_OF, f"{own} has no level: give it one here and in the architecture page"
    for name in imports(path):
        other = room(name)
        if other is None:
            continue
        assert other in LEVEL_OF, f"{module_of(path)} imports {name}: take it from the module that defines it"
        assert LEVEL_OF[other] <= LEVEL_OF[own], f"{module_of(path)} imports {name} from above"


@pytest.mark.parametrize("path", sorted((SOURCE / "training").rglob("*/*.py")), ids=module_of)
def test_imports_within_training_go_downward_only(path: Path) -> None:
    level_of = {inner: level for level, rooms in enumerate(TRAINING_LEVELS) for inner in rooms}
    own = path.relative_to(SOURCE / "training").parts[0]
    for name in imports(path):
        parts = name.split(".")
        if parts[:2] == ["unrolled", "training"] and len(parts) > 2 and parts[2] in level_of:
            assert level_of[parts[2]] <= level_of[own], f"{module_of(path)} imports {name} from above"


def test_no_imports_form_a_circle() -> None:
    graph = {
        module_of(path): {n for n in map(_existing, imports(path)) if n and n != module_of(path)} for path in INSIDE
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def _existing(name: str) -> str | None:
    """The module that an imported name lives in: `unrolled.state.leaves` -> unrolled.state."""
    modules = {module_of(path) for path in INSIDE}
    return name if name in modules else next((m for m in [name.rpartition(".")[0]] if m in modules), None)


@pytest.mark.parametrize("path", [p for p in FILES if room(module_of(p)) != "training"], ids=module_of)
def test_only_training_imports_what_training_needs(path: Path) -> None:
    found = {name.split(".")[0] for name in imports(path)} & TRAINING_ONLY

    assert not found or module_of(path) in RUN_ELSEWHERE, f"{module_of(path)} imports {', '.join(sorted(found))}"
    assert not RUN_ELSEWHERE & set(imports(path)), f"{module_of(path)} imports a file that is run elsewhere"


@pytest.mark.parametrize("path", [p for p in FILES if module_of(p) in RUN_ELSEWHERE], ids=module_of)
def test_a_file_that_is_run_elsewhere_needs_numpy_and_onnxruntime_alone(path: Path) -> None:
    found = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names

    assert found == {"numpy", "onnxruntime"}


def test_the_text_side_needs_not_even_torch() -> None:
    use = "t = unrolled.CharacterTokenizer('ab'); t.decode(t.encode('ba')); unrolled.LabelEncoder('xy')"

    assert not _loaded_by(f"import unrolled; {use}") & {"torch", *TRAINING_ONLY}


@pytest.mark.parametrize("command", ["sample", "classify", "inspect"])
def test_help_of_a_command_needs_not_even_torch(command: str) -> None:
    use = "from unrolled.deployment.command import _parsers"

    assert not _loaded_by(f"{use}; _parsers()[1]['{command}'].format_help()") & {"torch"}


def test_no_room_is_a_heap() -> None:
    names = {path.stem for root in (SOURCE, TASKS) for path in root.rglob("*")}

    assert "recurrent" in names
    assert not names & HEAPS


def test_tasks_never_import_each_other() -> None:
    tasks = [folder for folder in TASKS.iterdir() if (folder / "__init__.py").is_file()]
    assert tasks
    for task in tasks:
        for path in task.rglob("*.py"):
            for name in imports(path):
                if name.startswith("unrolled_tasks."):
                    assert name.split(".")[1] == task.name, f"{path} imports {name}"


PACKAGES = [unrolled, unrolled.deployment, unrolled.training, unrolled.training.estimators, unrolled.training.run]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_public_names_are_listed_once_and_in_order(package: ModuleType) -> None:
    stub = Path(str(package.__file__)).with_suffix(".pyi").read_text().splitlines()
    listed = [line for line in stub if line.startswith("from ")]

    assert listed == sorted(set(listed))
    for line in listed:  # so that a type checker takes it for public
        assert re.fullmatch(r"from unrolled\.[\w.]+ import (\w+) as \1", line), line
    names = [line.split()[-1] for line in listed]
    assert len(names) == len(set(names))
    assert package.__all__ == sorted(names)
    assert set(names) <= set(dir(package))


MODULE_OF = modules_of_names(unrolled.__file__)


@pytest.mark.parametrize("name", unrolled.__all__)
def test_every_public_name_resolves_to_what_its_module_defines(name: str) -> None:
    value = getattr(unrolled, name)

    assert value is getattr(importlib.import_module(MODULE_OF[name]), name)
    assert value.__module__ == MODULE_OF[name]
    assert value.__doc__, f"{name} has no docstring"


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(AttributeError, match=r"module 'unrolled' has no attribute 'LSTM'; it offers .*LSTMCell"):
        _ = unrolled.LSTM  # pyright: ignore[reportAttributeAccessIssue]


def _loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after a statement."""
    code = f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r}); {statement}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in result.stdout.split()}


def test_importing_the_package_loads_neither_torch_nor_lightning() -> None:
    assert not _loaded_by("import unrolled") & {"torch", *TRAINING_ONLY}


def test_using_the_package_loads_torch_alone() -> None:
    # numpy is left out: torch loads it by itself where it is installed.
    loaded = _loaded_by("from unrolled import LSTMCell, Recurrent, cross_entropy; Recurrent(LSTMCell, 3, 4)")

    assert "torch" in loaded
    assert not loaded & (TRAINING_ONLY - {"numpy"})
