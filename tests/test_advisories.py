"""No version that pyproject.toml lets in has a hole that tests/advisories.toml knows of."""

import datetime
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
KNOWN = tomllib.loads((ROOT / "tests" / "advisories.toml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ADVISORIES: list[dict[str, Any]] = KNOWN["advisory"]


def requirements() -> Iterator[Requirement]:
    project = PROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values(), PROJECT["build-system"]["requires"]]
    for line in (line for lines in lists for line in lines):
        requirement = Requirement(line)
        if requirement.name != project["name"]:  # one extra that names others
            yield requirement


def lets_in(requirement: Requirement, affected: SpecifierSet) -> list[Version]:
    """Affected versions that a requirement allows: two ranges meet where they meet at the beginning of one of them."""
    named = {Version(s.version) for s in (*requirement.specifier, *affected)} | {Version("0")}
    return sorted(v for v in named if v in affected and v in requirement.specifier)


@pytest.mark.parametrize("advisory", ADVISORIES, ids=lambda a: f"{a['package']}-{a['id']}")
def test_no_allowed_version_has_a_known_hole(advisory: dict[str, Any]) -> None:
    asking = [r for r in requirements() if canonicalize_name(r.name) == canonicalize_name(advisory["package"])]
    affected = SpecifierSet(advisory["affected"])

    assert asking, "an advisory for a package that nothing asks for"
    if advisory.get("accepted"):
        return
    assert Version(advisory["fixed"]) not in affected
    for requirement in asking:
        found = lets_in(requirement, affected)
        assert not found, f"{requirement} lets in {found[0]} ({advisory['id']}): ask for {advisory['fixed']} or later"


@pytest.mark.parametrize("requirement", list(requirements()), ids=str)
def test_every_package_has_a_floor_which_this_environment_keeps(requirement: Requirement) -> None:
    assert any(s.operator in (">=", "==") for s in requirement.specifier), "no lowest version"
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        pytest.skip("not installed here")
    assert requirement.specifier.contains(installed, prereleases=True), installed


def test_the_list_says_when_it_was_made_and_each_thing_once() -> None:
    assert isinstance(KNOWN["date"], datetime.date)
    assert KNOWN["date"] <= datetime.date.today()
    names = [(a["package"], a["id"]) for a in ADVISORIES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("requirement", "affected", "first"),
    [
        ("a>=2.6.4,<2.7", "<2.6.6", "2.6.4"),
        ("a>=3.20.3", ">=4.1.0,<4.2.1", "4.1.0"),  # a hole that came later than the floor
        ("a>=2.6.4,!=2.6.5", "==2.6.5", None),
        ("a>=2.6.6", "<2.6.6", None),
        ("a", "<1", "0"),
        ("a==3.0.0", "<=3.0.0", "3.0.0"),
    ],
)
def test_ranges_that_meet_are_found(requirement: str, affected: str, first: str | None) -> None:
    found = lets_in(Requirement(requirement), SpecifierSet(affected))
    assert [str(v) for v in found[:1]] == ([first] if first else [])
