"""A search with Optuna draws what its seed says, learns from scores, prunes, and goes on after it was killed."""

import csv
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.configuration.overrides import check_overrides
from unrolled.training.run.optuna_sweeper import build_sampler
from unrolled.training.run.records import JOB, JobRecord
from unrolled.training.run.runner import run
from unrolled.training.run.search_space import override_of, search_space
from unrolled.training.run.study import StudyOfSweep, build_pruner
from unrolled.training.run.sweeps import Sweep

Begin = Callable[..., "subprocess.Popen[str]"]
Process = Callable[..., "subprocess.CompletedProcess[str]"]
Configure = Callable[..., Any]

LIGHT = str(Path(__file__).with_name("light_sweep.py"))
TPE = {"_target_": "optuna.samplers.TPESampler", "seed": 1, "n_startup_trials": 2}


@pytest.fixture(autouse=True)
def quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(1e-4,1e-1)", FloatDistribution(1e-4, 1e-1)),
        ("tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("int(interval(16,64))", IntDistribution(16, 64)),
        ("tag(log,int(interval(16,64)))", IntDistribution(16, 64, log=True)),
        ("range(16,65,16)", IntDistribution(16, 64, step=16)),
        ("range(16,66,16)", IntDistribution(16, 64, step=16)),  # the stop of a range is not part of it
        ("range(0.1,0.5,0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
        ("range(0.2,0.9,0.1)", FloatDistribution(0.2, 0.8, step=0.1)),
        ("range(5,0,-2)", IntDistribution(1, 5, step=2)),
        ("gru,lstm", CategoricalDistribution(("gru", "lstm"))),
        ("choice(1,true,'a b')", CategoricalDistribution(("1", "True", r"a\ b"))),
    ],
)
def test_overrides_are_distributions(text: str, expected: BaseDistribution) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"some.key={text}"])
    found = search_space([override])["some.key"]

    assert found == expected
    if text.startswith("range"):  # all values of Hydra's own, and no others
        low, step, high = found.low, found.step, found.high  # type: ignore[attr-defined]
        count = round((high - low) / step) + 1
        assert [low + place * step for place in range(count)] == pytest.approx(sorted(override.sweep_iterator()))


def test_a_number_of_a_range_is_written_as_hydra_writes_it() -> None:
    (override,) = OverridesParser.create().parse_overrides(["dropout=range(0.1,0.5,0.1)"])

    assert override_of(override, 0.1 + 0.3000000001) == "dropout=0.4"  # steps of Optuna are rounded otherwise


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr=interval(1,0.1)", "lr=interval"),
        ("lr=tag(log,interval(0,1))", "lr=tag"),
        ("lr=tag(log,choice(1,2))", "only an interval or a range"),
        ("lr=tag(lig,interval(1,2))", "unknown tag lig"),
    ],
)
def test_an_impossible_space_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said.replace("(", r"\(")):
        search_space(OverridesParser.create().parse_overrides([text]))


def test_the_seed_of_a_sampler_depends_on_the_job() -> None:
    def draw(description: Mapping[str, Any], number: int) -> float:
        study = optuna.create_study(sampler=build_sampler(description, number))
        return study.ask({"x": FloatDistribution(0, 1)}).params["x"]

    random = {"_target_": "optuna.samplers.RandomSampler", "seed": 1}
    drawn = [draw(random, number) for number in range(50)]
    assert drawn == [draw(random, number) for number in range(50)]
    assert len(set(drawn)) == 50
    assert drawn != [draw({**random, "seed": 2}, number) for number in range(50)]
    assert 0.35 < sum(drawn) / 50 < 0.65  # uniform: three standard deviations are 0.12


def test_a_pruner_is_one_of_optunas() -> None:
    wrapped = {"_target_": "optuna.pruners.PatientPruner", "patience": 1, "wrapped_pruner": {"_target_": "os.system"}}

    assert isinstance(build_pruner({"_target_": "optuna.pruners.MedianPruner"}), optuna.pruners.MedianPruner)
    for description in ({"_target_": "os.system"}, {"_target_": "optuna.pruners.os"}, wrapped):
        with pytest.raises(ConfigurationError, match=r"is not a class of optuna\.pruners"):
            build_pruner(description)


def test_a_search_that_is_killed_goes_on_with_what_it_would_have_drawn(
    folder: Path, python: Process, begin: Begin, wait_for: Callable[..., None]
) -> None:
    space = ["optimizer.lr=tag(log,interval(1e-2,3))", "model=gru,lstm"]
    sampler = ["hydra.sweeper.n_trials=6", "+hydra.sweeper.sampler.n_startup_trials=2"]
    search = [LIGHT, "-m", "hydra/sweeper=optuna", *sampler, *space]
    whole = python(*search, "seed=1", "hydra.sweeper.sampler.seed=1", "run_dir=whole")
    assert whole.returncode in (0, 1), whole.stderr  # a job fails where the learning rate is above 1

    command = [*search, "seed=1", "hydra.sweeper.sampler.seed=1", "run_dir=all"]
    for job in (1, 4):
        process = begin(command)
        wait_for((folder / "all" / ".sweep" / f"{job}.json").is_file, process)
        process.kill()
        process.wait()
        command = [LIGHT, "-m", "resume=all"]
    python(*command)

    assert (folder / "all" / "results.csv").read_text() == (folder / "whole" / "results.csv").read_text()
    study = optuna.load_study(study_name="unrolled", storage=f"sqlite:///{folder}/whole/study.db")
    table = rows(folder / "whole" / "results.csv")
    assert len(table) == 6
    oracle = optuna.create_study(direction="minimize")  # Optuna by itself, told the same scores
    overrides = OverridesParser.create().parse_overrides(space)
    for number, row in enumerate(table):
        oracle.sampler = build_sampler(TPE, number)
        trial = oracle.ask(search_space(overrides))
        assert f"{trial.params['optimizer.lr']}" == row["optimizer.lr"]
        assert trial.params["model"] == row["model"]
        if row["state"] == "complete":
            oracle.tell(trial, float(row["best_validation"]))
            assert study.trials[number].value == float(row["best_validation"])
        else:
            oracle.tell(trial, state=optuna.trial.TrialState.FAIL)


@pytest.mark.slow
def test_a_search_that_is_killed_at_random_moments_ends_as_if_it_had_not_been(
    folder: Path, python: Process, begin: Begin
) -> None:
    options = ["hydra.sweeper.n_trials=8", "+hydra.sweeper.sampler.n_startup_trials=2", "seed=25"]
    search = [LIGHT, "-m", "hydra/sweeper=optuna", *options, "optimizer.lr=interval(0,1.2)", "model=gru,lstm"]
    whole = python(*search, "run_dir=whole")
    seconds, random, kills = 1.0, Random(0), 0

    while True:
        process = begin([*search, "run_dir=all"])
        try:
            process.wait(random.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            descendants = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.kill()
            for child in descendants if random.random() < 0.7 else ():
                os.kill(int(child), signal.SIGKILL)
            process.wait()
            kills, seconds = kills + 1, seconds * 1.15  # in the end enough for a whole sweep
        else:
            break

    assert process.returncode == whole.returncode
    assert kills > 5
    assert (folder / "all" / "results.csv").read_text() == (folder / "whole" / "results.csv").read_text()


def test_a_space_may_stand_in_a_file(folder: Path, python: Process) -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "sweeps.md"
    (shown,) = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    (folder / "mylab" / "conf" / "experiment").mkdir(parents=True)
    (folder / "mylab" / "conf" / "experiment" / "rates.yaml").write_text(shown)
    search = ["-m", "experiment=rates", "hydra/sweeper=random", "hydra.sweeper.n_trials=3", "seed=1", "run_dir=all"]
    done = python(LIGHT, "--config-dir", "mylab/conf", *search)

    assert done.returncode == 0, done.stderr
    table = rows(folder / "all" / "results.csv")
    assert len({row["optimizer.lr"] for row in table}) == 3
    assert all(1e-4 <= float(row["optimizer.lr"]) <= 1e-1 for row in table)
    assert {row["model"] for row in table} <= {"gru", "lstm"}


def test_a_job_that_is_worse_than_others_is_pruned(folder: Path, python: Process) -> None:
    median = ["hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=1"]
    search = [LIGHT, "-m", "hydra/sweeper=random", *median, "hydra.sweeper.n_trials=4", "seed=3", "run_dir=all"]
    done = python(*search, "optimizer.lr=range(0.2,0.9,0.1)")

    assert done.returncode == 0, done.stderr
    table = rows(folder / "all" / "results.csv")
    rates = [float(row["optimizer.lr"]) for row in table]
    medians = [sorted(rates[:number])[(number - 1) // 2 : number // 2 + 1] for number in range(1, 4)]
    worse = [rate > sum(middle) / len(middle) for rate, middle in zip(rates[1:], medians, strict=True)]
    assert [row["state"] for row in table] == ["complete", *("pruned" if each else "complete" for each in worse)]
    assert any(worse)


@pytest.mark.parametrize("upper", [0.001, 100.0])
def test_a_run_reports_its_validations_and_ends_where_optuna_prunes_it(
    folder: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, upper: float
) -> None:
    records = folder / ".sweep"
    pruner = {"_target_": "optuna.pruners.ThresholdPruner", "upper": upper}
    place = StudyOfSweep.open(records, "unrolled", None, pruner)
    study = optuna.create_study(study_name="unrolled", storage=place.url(records))
    place.mark(study.ask(), 0)
    JobRecord(0, (), "run").write(records / "0.json")
    monkeypatch.setenv(JOB, str(records / "0.json"))

    numbers = run(configure("run", "trainer.max_epochs=2"))

    summary = json.loads((folder / "run" / "summary.json").read_text())
    steps = sorted(study.trials[0].intermediate_values)
    assert summary["pruned"] == (upper < 1)
    assert steps == ([summary["steps"]] if upper < 1 else [summary["steps"] // 2, summary["steps"]])
    assert bool(numbers) == (upper > 1)  # a pruned run is not tested
    assert min(study.trials[0].intermediate_values.values()) == pytest.approx(summary["best_validation"])


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_of_a_job_end_where_optuna_prunes_it(
    folder: Path, python: Process, train_script: str, small: list[str]
) -> None:
    two = [*small, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=3", "logger=csv"]
    pruner = [f"+hydra.sweeper.pruner.{option}" for option in ("_target_=optuna.pruners.ThresholdPruner", "upper=0.1")]
    search = ["hydra/sweeper=random", *pruner, "hydra.sweeper.n_trials=2", "optimizer.lr=interval(1e-3,1e-2)"]
    done = python(train_script, "-m", *two, *search, "run_dir=all")

    assert done.returncode == 0, done.stderr
    assert [row["state"] for row in rows(folder / "all" / "results.csv")] == ["pruned", "pruned"]
    for job in ("0", "1"):
        summary = json.loads((folder / "all" / job / "summary.json").read_text())
        assert (summary["processes"], summary["epochs"], summary["pruned"]) == (2, 1, True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["hydra.sweeper.storage=nowhere"], "hydra.sweeper.storage"),
        (["hydra.sweeper.storage=sqlite:////proc/x.db"], "hydra.sweeper.storage"),
        (["hydra.sweeper.storage=nosuch://host/x"], "hydra.sweeper.storage"),
        (["hydra.sweeper.n_trials=0"], "n_trials=0"),
        (["hydra.sweeper.n_trial=3"], "n_trial"),
        (["hydra/sweeper/pruner=mediann"], "mediann"),
        (["hydra.sweeper.sampler._target_=os.nothing"], "hydra.sweeper.sampler"),
        (["+hydra.sweeper.pruner._target_=os.system"], "not a class of optuna.pruners"),
        (["optimizer.lr=tag(log,interval(0,1))"], "optimizer.lr=tag"),
    ],
)
def test_a_wrong_search_is_refused(folder: Path, given: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        Sweep.begin("train", ["python", "train.py"], [], ["hydra/sweeper=optuna", "seed=1,2", *given])

    assert said in str(refusal.value)
    assert not os.path.lexists(folder / "outputs")


def test_a_misspelt_key_of_an_interval_is_answered(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean optimizer\.lr"):
        check_overrides("train", ["optimizer.lrr=interval(0,1)"], sweep=True)
    with pytest.raises(ConfigurationError, match="hidden_size"):
        check_overrides("train", ["model.hidden_size=interval(16,64)"], sweep=True)  # floats


def test_sweeps_with_one_database_learn_from_one_another_and_no_file_holds_its_password(
    folder: Path, python: Process
) -> None:
    url = f"sqlite:///{folder}/shared.db?secret=7351"
    storage = "hydra.sweeper.storage=${oc.env:OPTUNA_STORAGE}"
    for name in ("one", "two"):
        search = [LIGHT, "-m", "hydra/sweeper=optuna", storage, "hydra.sweeper.n_trials=2", f"run_dir={name}", "seed=1"]
        done = python(*search, "optimizer.lr=interval(0.1,0.9)", OPTUNA_STORAGE=url)
        assert done.returncode == 0, done.stderr

    study = optuna.load_study(study_name="unrolled", storage=f"sqlite:///{folder}/shared.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
    rates = [row["optimizer.lr"] for name in ("one", "two") for row in rows(folder / name / "results.csv")]
    assert [str(trial.params["optimizer.lr"]) for trial in study.trials] == rates
    assert not [path for path in folder.rglob("*") if path.is_file() and b"7351" in path.read_bytes()]

    search[-2] = "run_dir=three"
    done = python(*search, "optimizer.lr=interval(0.1,0.9)", "monitor.mode=max", OPTUNA_STORAGE=url)
    assert done.returncode == 2, done.stderr
    assert "another direction" in done.stderr
