"""Forecasting from the command line: learned, scored, resumed, shared between processes, used."""

import csv
import io
import json
import math
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.deployment import anomalies, forecast, read_csv_series
from unrolled.deployment.forecasting import forecast_series, forecaster_of
from unrolled.training.run.runner import run, score
from unrolled_tasks.forecasting import Forecasting

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]
QUIET = [
    "task=forecasting",
    "trainer=cpu",
    "model=gru",
    "callbacks.progress=null",
    "callbacks.curves=null",
    "+trainer.enable_progress_bar=false",
]
WAVES = ["data=series_table", "data.files=x.csv", "data.series=name", "data.context=20", "data.horizon=5"]
TINY = [*QUIET, *WAVES, "data.batch_size=8", "data.stride=4", "forecaster.hidden_size=12"]


@pytest.fixture
def waves(folder: Path) -> Path:
    """Two waves with a season of 12 steps, on levels of their own."""
    with (folder / "x.csv").open("w") as file:
        file.write("time,name,target\n")
        for step in range(240):
            for name, level, size in (("low", 5, 1), ("high", 1000, 50)):
                file.write(f"{step},{name},{level + size * math.sin(step * math.pi / 6):.5f}\n")
    return folder


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("forecaster", ["direct", "autoregressive", "segments"])
def test_it_learns_waves_and_is_scored_beside_baselines(forecaster: str, waves: Path, configure: Configure) -> None:
    options = [f"forecaster={forecaster}", "trainer.max_epochs=10", "optimizer.lr=1e-2", "data.stride=1"]
    options += ["forecaster.output_dropout=0", "distribution=normal", "data.season=12", "task.num_samples=20"]
    options += ["forecaster.segment_size=5"] if forecaster == "segments" else []
    run(configure("run", *QUIET, *WAVES, *options, "forecaster.hidden_size=24", small=False))

    found = summary(waves / "run")
    assert found["test/scaled_mae"] < 0.25
    assert found["test/naive/scaled_mae"] > 0.8
    assert found["test/seasonal_naive/scaled_mae"] < 1e-4  # a wave repeats itself
    assert found["test/linear/scaled_mae"] < 0.05
    assert found["test/rmse"] == pytest.approx(math.sqrt(found["test/mse"]))
    assert 0.0 <= found["test/coverage"] <= 1.0
    assert found["test/crps"] == pytest.approx(2 * found["test/pinball"])
    assert "test/mase" not in found  # the seasonal naive forecast has no error to divide by
    for name in Forecasting.files:
        assert (waves / "run" / name).stat().st_size > 100
    bundle = load_bundle(waves / "run" / "checkpoints" / "best.ckpt")
    network, transform = forecaster_of(bundle)
    series = read_csv_series(waves / "x.csv", transform.columns, transform.frequency)
    steps = list(forecast(bundle, series, horizon=3, quantiles=(0.1, 0.9)))
    assert [(step.series, step.time) for step in steps] == [(n, t) for n in ("low", "high") for t in (240, 241, 242)]
    truth = [1000 + 50 * math.sin(t * math.pi / 6) for t in (240, 241, 242)]
    assert [step.value for step in steps[3:]] == pytest.approx(truth, abs=25)
    assert all(step.quantiles[0.1] < step.quantiles[0.9] for step in steps)
    assert network.horizon == 5


@pytest.mark.parametrize("distribution", ["quantile", "student_t", "mean", "median"])
def test_each_distribution_trains_and_a_handful_is_learned_by_heart(
    distribution: str, waves: Path, configure: Configure
) -> None:
    options = [f"distribution={distribution}", "debug=overfit", "forecaster.output_dropout=0", "optimizer.lr=1e-2"]
    run(configure("run", *TINY, *options, "trainer.max_epochs=60", small=False))

    rows = (waves / "run" / "metrics.csv").read_text()
    assert "nan" not in rows
    losses = [float(row["train/loss"]) for row in csv.DictReader(io.StringIO(rows)) if row.get("train/loss")]
    assert losses[-1] < (0.35 * losses[0] if distribution != "student_t" else losses[0] - 1.0)


def test_a_resumed_run_ends_like_one_that_was_not(waves: Path, configure: Configure) -> None:
    common = [*TINY, "test=false", "scheduler=none"]
    run(configure("one", *common, "trainer.max_epochs=2", small=False))
    run(configure("part", *common, "trainer.max_steps=7", "trainer.max_epochs=-1", small=False))
    last = waves / "part" / "checkpoints" / "last.ckpt"
    run(configure("rest", *common, "trainer.max_epochs=2", f"resume={last}", small=False))

    one, other = (load_bundle(waves / name / "checkpoints" / "last.ckpt").network for name in ("one", "rest"))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.distributed
def test_two_processes_are_one_with_the_joined_batch(waves: Path, python: Process, train_script: str) -> None:
    rows = (waves / "x.csv").read_text().splitlines()
    (waves / "x.csv").write_text("\n".join(row for n, row in enumerate(rows) if n % 7 or n == 0))  # missing steps
    common = [*TINY, "forecaster.output_dropout=0", "trainer.max_steps=6", "trainer.max_epochs=-1"]

    one = python(train_script, *common, "data.batch_size=8", "hydra.run.dir=one")
    two = python(train_script, *common, "data.batch_size=4", "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two")

    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    for name in ("loss", "mae", "crps", "coverage", "linear/mae"):
        found, same = (summary(waves / run)[f"test/{name}"] for run in ("one", "two"))
        assert found == pytest.approx(same, rel=1e-4), name


def test_scoring_and_the_commands(waves: Path, configure: Configure, python: Process) -> None:
    run(configure("run", *TINY, "trainer.max_epochs=1", small=False))
    checkpoint = waves / "run" / "checkpoints" / "best.ckpt"
    more = ["data=series_table", "data.files=x.csv", "data.split_fractions=[0,0,1]"]
    found = score(
        configure("score", "task=forecasting", f"checkpoint={checkpoint}", *more, name="evaluate", small=False)
    )
    assert found["test/mae"] > 0
    assert "test/linear/mae" not in found  # no training split to fit it to

    def command(name: str, *options: str) -> subprocess.CompletedProcess[str]:
        return python("-m", "unrolled", name, str(checkpoint), "x.csv", *options)

    plain = command("forecast", "--horizon", "2", "--quantiles", "0.1", "0.5", "0.9", "--plot", "f.svg")
    assert plain.returncode == 0, plain.stderr
    rows = list(csv.DictReader(io.StringIO(plain.stdout)))
    assert [(row["series"], row["time"]) for row in rows] == [
        ("low", "240"),
        ("low", "241"),
        ("high", "240"),
        ("high", "241"),
    ]
    assert all(float(row["q0.1"]) <= float(row["q0.5"]) <= float(row["q0.9"]) for row in rows)
    lines = [json.loads(line) for line in command("forecast", "--json").stdout.splitlines()]
    assert len(lines) == 10
    scores = command("anomaly", "--all", "--plot", "a.svg")
    assert scores.returncode == 0, scores.stderr
    assert len(scores.stdout.splitlines()) == 1 + 2 * 239
    for name in ("f.svg", "a.svg"):
        assert len(list(ElementTree.parse(waves / name).getroot())) == 3  # a background and two charts
    for options, said in (
        (["--horizon", "6"], "horizon=6: expected 1 to 5"),
        (["--quantiles", "1.5"], "quantile 1.5: expected a probability between 0 and 1"),
        (["--plot", "f.png"], "pictures are .svg files"),
    ):
        wrong = command("forecast", *options)
        assert wrong.returncode == 2
        assert said in wrong.stderr
    other = python("-m", "unrolled", "forecast", str(checkpoint), "x.parquet")
    assert (other.returncode, len(other.stderr.splitlines())) == (2, 1)
    assert "x.parquet: forecasts read .csv files" in other.stderr
    (waves / "x.csv").write_text("time,name,target\n1,low,2\n1,low,3\n")
    wrong = command("forecast")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
    assert "x.csv, line 3: the time 1 of series 'low' is also that of x.csv, line 2" in wrong.stderr


def test_an_outlier_has_the_greatest_score(waves: Path, configure: Configure) -> None:
    run(configure("run", *TINY, "trainer.max_epochs=10", "optimizer.lr=1e-2", "data.stride=1", small=False))
    bundle = load_bundle(waves / "run" / "checkpoints" / "best.ckpt")
    network, transform = forecaster_of(bundle)
    forms = transform.columns, transform.frequency
    text = (waves / "x.csv").read_text().splitlines()
    place = next(n for n, line in enumerate(text) if line.startswith("150,high,"))
    text[place] = "150,high,1200"
    (waves / "changed.csv").write_text("\n".join(text))

    scores = list(anomalies(bundle, read_csv_series(waves / "changed.csv", *forms)))

    worst = max(scores, key=lambda each: each.score)
    assert (worst.series, worst.time, worst.value) == ("high", 150, 1200.0)
    assert worst.score > 2
    new = next(s for s in read_csv_series(waves / "changed.csv", *forms) if s.name == "high")
    new = replace(new, name="new")
    changed = replace(new, values=torch.cat([new.values[:100], 7 * new.values[100:]]))
    one, other = (forecast_series(network, transform, series, 100).values for series in (new, changed))
    assert torch.equal(one, other)  # what comes after the origin is not read
    with pytest.raises(ValueError, match="interval=0, batch_size=64: expected"):
        list(anomalies(bundle, [], interval=0))


def test_known_future_covariates_are_needed_of_the_future(waves: Path, configure: Configure) -> None:
    text = (waves / "x.csv").read_text().splitlines()
    rows = [text[0] + ",known", *(f"{line},{n % 5}" for n, line in enumerate(text[1:]))]
    (waves / "x.csv").write_text("\n".join(rows))
    run(configure("run", *TINY, "data.future=[known]", "trainer.max_epochs=1", small=False))
    bundle = load_bundle(waves / "run" / "checkpoints" / "best.ckpt")
    transform = forecaster_of(bundle)[1]

    def steps() -> int:
        return len(list(forecast(bundle, read_csv_series(waves / "x.csv", transform.columns, transform.frequency))))

    with pytest.raises(ValueError, match=r"series 'low' needs 5 more rows after its last one, with known and empty"):
        steps()
    rows += [f"{step},{name},,1" for step in range(240, 245) for name in ("low", "high")]
    (waves / "x.csv").write_text("\n".join(rows))
    assert steps() == 10
