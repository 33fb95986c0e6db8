"""A value stands in a file where it differs from its constructor's default, with a reason, or where it teaches.

The reasons are in reasons.yaml beside this file. Experiments and debug are left out: they state what a reported number
depends on, whatever the defaults are, and the first lines of each say what for.
"""

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from omegaconf import OmegaConf

from unrolled.descriptions import locate
from unrolled.training.configuration.options import TRAINER
from unrolled.training.configuration.overrides import config_folder
from unrolled.training.configuration.schema import signature

CONF = Path(config_folder())
LEFT_OUT = ("experiment", "debug")
NAMES = sorted(str(path.relative_to(CONF))[:-5] for path in CONF.rglob("*.yaml"))
FILES = [name for name in NAMES if name.partition("/")[0] not in LEFT_OUT]
REASONS: Mapping[str, Mapping[str, str]] = yaml.safe_load(Path(__file__).with_name("reasons.yaml").read_text())


class Value(NamedTuple):
    """An option as a file gives it."""

    key: str  # dotted, within the file
    given: Any
    default: Any  # the constructor's
    before: Any  # what the files give that this one builds on, or the default
    line: str


def content(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text()) or {}


def bases(name: str) -> list[str]:
    """The files of the same group that one builds on, the last one over those before it."""
    folder = name.rpartition("/")[0]
    entries = content(name).get("defaults", [])
    named = [entry.partition("@")[0] for entry in entries if isinstance(entry, str) and entry != "_self_"]
    return [f"{folder}/{entry}" for entry in named if f"{folder}/{entry}" in NAMES]


@cache
def whole(name: str) -> dict[str, Any]:
    """A file over those that it builds on."""
    own = {key: value for key, value in content(name).items() if key != "defaults"}
    return OmegaConf.to_container(OmegaConf.merge(inherited(name), own))  # type: ignore[return-value]


@cache
def inherited(name: str) -> dict[str, Any]:
    """What the files give that one builds on."""
    return OmegaConf.to_container(OmegaConf.merge({}, *map(whole, bases(name))))  # type: ignore[return-value]


@cache
def defaults(target: str) -> dict[str, Any]:
    """What a constructor takes where nothing is given."""
    made = locate(target)
    taken = dict(inspect.signature(made).parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        taken = {**inspect.signature(made.__mro__[1].__init__).parameters, **taken}  # **options go to the base
    return {key: p.default for key, p in taken.items() if p.default is not p.empty}


def taker(name: str, path: str, node: Any, above: str) -> str:
    """What options are given to: the node's class, that of the constructor's argument, or Lightning's Trainer."""
    if name.startswith("trainer/") and not path:
        return TRAINER
    made = signature(above) if above else None
    kinds = made.parameters.get(path.rpartition(".")[2], ()) if made else ()
    return node.get("_target_") or next((kind.options for kind in kinds if kind.options), "")


def plain(value: Any) -> Any:
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def values(name: str) -> Iterator[Value]:
    """All values of a file that a constructor has a default for."""
    text = (CONF / f"{name}.yaml").read_text()
    root = yaml.compose(text)
    if isinstance(root, yaml.MappingNode):
        yield from below(name, "", root, whole(name), inherited(name), "", text.splitlines())


def below(name: str, path: str, node: Any, merged: Any, base: Any, above: str, lines: list[str]) -> Iterator[Value]:
    target = taker(name, path, merged, above)
    taken = defaults(target) if target else {}
    for word, child in node.value:
        key, inner = word.value, f"{path}.{word.value}".removeprefix(".")
        if inner == "defaults" or key.startswith("_"):
            continue
        value = merged[key]
        if isinstance(value, dict) and (key not in taken or taker(name, inner, value, target)):
            deeper = base.get(key)
            yield from below(name, inner, child, value, deeper if isinstance(deeper, dict) else {}, target, lines)
        elif key in taken and not (isinstance(value, str) and ("${" in value or value == "???")):
            line = lines[word.start_mark.line]
            yield Value(inner, plain(value), plain(taken[key]), plain(base.get(key, taken[key])), line)


def available(name: str) -> list[Value]:
    try:
        return list(values(name))
    except ValueError as error:
        pytest.skip(str(error))  # needs a package that is not installed


def test_there_are_files_to_look_at() -> None:
    assert len(FILES) > 80
    assert sum(len(list(values(name))) for name in FILES if name.startswith(("data/", "model/", "task/"))) > 100


@pytest.mark.parametrize("name", FILES)
def test_every_difference_has_a_reason_and_every_reason_a_difference(name: str) -> None:
    differing = {value.key for value in available(name) if value.given != value.default}
    reasons = REASONS.get(name, {})

    assert differing == set(reasons), "give the reason in reasons.yaml, or take it out"
    assert all(len(reason) > 9 for reason in reasons.values())


def test_reasons_are_of_files_that_are_there() -> None:
    assert set(REASONS) <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_default_that_is_restated_teaches(name: str) -> None:
    restated = [value for value in available(name) if value.given == value.default == value.before]

    assert [value.key for value in restated if "  # " not in value.line] == [], "take it out, or say what it teaches"


def test_both_notice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tmp_path / "model" / "mine.yaml"
    model.parent.mkdir()
    cell = "cell: {_target_: unrolled.LSTMCell, _partial_: true, zoneout: 0.5, weight_drop: 0.0}\n"
    model.write_text(f"_target_: unrolled.Recurrent\n{cell}hidden_size: 3\ndropout: 0.0\nbackend: loop\n")
    monkeypatch.setitem(globals(), "CONF", tmp_path)

    found = {value.key: value.given == value.default for value in values("model/mine")}
    assert found == {"cell.zoneout": False, "cell.weight_drop": True, "dropout": True, "backend": False}
