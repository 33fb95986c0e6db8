"""A sweep runs all of its runs, whatever becomes of one, and its table holds what each of them wrote down."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.configuration.run_dir import in_run_dir

Process = Callable[..., subprocess.CompletedProcess[str]]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_one_run_that_fails_ends_no_other(folder: Path, python: Process, train_script: str, small: list[str]) -> None:
    before = files(folder)
    rates = "optimizer.lr=-1,1e30,1e-3"  # refused, breaks down in training, trains
    done = python(train_script, "-m", *small, rates, "trainer.max_epochs=1", "run_dir=all", "logger=csv")

    assert done.returncode == 1, done.stderr
    first, second, third = rows(folder / "all" / "results.csv")
    assert [row["optimizer.lr"] for row in (first, second, third)] == ["-1", "1e+30", "0.001"]
    assert "learning rate" in first["error"]
    assert "nonfinite" in second["error"] or "finite" in second["error"]
    assert third["error"] == ""
    written = json.loads((folder / "all" / third["folder"] / "summary.json").read_text())
    for name in ("test/loss", "test/bits_per_character", "best_validation"):
        assert (float(third[name]) if third[name] else None) == written[name], name
    assert f"{written['test/loss']:.4f}" in done.stdout
    assert [line.split()[1] for line in done.stderr.splitlines() if line.startswith("failed: ")] == [
        "optimizer.lr=-1:",
        "optimizer.lr=1e+30:",
    ]
    outside = {name for name in files(folder) - before if not name.startswith(("all/", "cache/"))}
    assert outside == set()
    assert not (folder / "all" / "0").exists()


def test_a_sweep_of_wrong_input_leaves_nothing_and_ends_like_it(
    folder: Path, python: Process, train_script: str, small: list[str]
) -> None:
    before = files(folder)
    done = python(train_script, "-m", *small, "model.hidden_size=0,-1")

    assert done.returncode == 2, done.stdout
    assert done.stderr.count("failed: model.hidden_size=") == 2
    assert "Traceback" not in done.stderr
    assert files(folder) == before
    assert not (folder / "outputs").exists()


@pytest.mark.parametrize(
    ("given", "arranged"),
    [
        (["run_dir=a"], ["hydra.run.dir=a"]),
        (["seed=1", "run_dir='a b'"], ["seed=1", "hydra.run.dir='a b'"]),
        (["-m", "run_dir=a"], ["-m", "hydra.sweep.dir=a"]),
        (["-m", "run_dir=a/b-${seed}/c"], ["-m", "hydra.sweep.dir=a", "hydra.sweep.subdir=b-${seed}/c"]),
        (["-m", 'run_dir="a b/${seed}"'], ["-m", 'hydra.sweep.dir="a b"', 'hydra.sweep.subdir="${seed}"']),
        (["seed=1"], ["seed=1"]),
    ],
)
def test_run_dir_is_hydras_own_folder(given: list[str], arranged: list[str]) -> None:
    assert in_run_dir(given) == arranged


def test_a_sweep_has_one_folder() -> None:
    with pytest.raises(ConfigurationError, match="a sweep has one folder"):
        in_run_dir(["-m", "run_dir=a,b"])


def test_a_run_leaves_nothing_beside_its_folder(
    folder: Path, python: Process, train_script: str, small: list[str]
) -> None:
    before = files(folder)
    done = python(train_script, *small, "trainer.max_steps=1", "test=false", "run_dir=of mine/x")

    assert done.returncode == 0, done.stderr
    outside = {name for name in files(folder) - before if not name.startswith(("of mine/x/", "cache/"))}
    assert outside == set()
    assert (folder / "of mine" / "x" / "config.yaml").is_file()


def test_runs_of_a_sweep_lie_where_their_values_say(
    folder: Path, python: Process, train_script: str, small: list[str]
) -> None:
    few = ["trainer.max_steps=1", "test=false", "logger=csv"]
    done = python(train_script, "-m", *small, *few, "seed=3,4", "run_dir=runs/seed-${seed}")

    assert done.returncode == 0, done.stderr
    assert [row["folder"] for row in rows(folder / "runs" / "results.csv")] == ["seed-3", "seed-4"]
    assert (folder / "runs" / "seed-4" / "summary.json").is_file()
    assert not (folder / "outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run_dir=rhyme.txt/x"], "run_dir=rhyme.txt/x: nothing can be written there (Not a directory"),
        (["-m", "seed=1,2", "run_dir=rhyme.txt/${seed}"], "run_dir=rhyme.txt: nothing can be written there"),
        (["run_dir=/proc/x"], "run_dir=/proc/x: nothing can be written there"),
        (["--model=gru"], "--model=gru: choices and settings are written without dashes: model=gru"),
        (["--model", "gru"], "--model: no such option"),
    ],
)
def test_such_a_command_is_answered_in_a_line(
    folder: Path, python: Process, train_script: str, arguments: list[str], said: str
) -> None:
    done = python(train_script, *arguments)

    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
