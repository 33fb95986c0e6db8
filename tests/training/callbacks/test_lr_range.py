"""The learning-rate range test: the rate grows geometrically, the suggestion is where a known curve falls fastest."""

import csv
import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from unrolled.training.callbacks.lr_range import LearningRateRange, smoothed, suggestion
from unrolled.training.run.runner import run
from unrolled.training.tasks.schedules import Range

Configure = Callable[..., DictConfig]


def test_the_rate_grows_by_a_constant_factor_in_every_group() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.02, 0.04)]
    optimizer = torch.optim.SGD(groups)
    scheduler = Range(1e-4, 1.0).build(optimizer, 5)["scheduler"]

    rates = []
    for _ in range(5):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()

    assert rates == [pytest.approx([10.0**power, 2 * 10.0**power]) for power in (-4, -3, -2, -1, 0)]


def test_a_mean_without_bias_keeps_a_constant_and_follows_the_definition() -> None:
    assert smoothed([2.0] * 5, 0.9) == pytest.approx([2.0] * 5)
    losses, decay = [3.0, 1.0, 4.0], 0.5
    weights = [decay**2, decay, 1.0]
    wanted = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
    assert smoothed(losses, decay)[-1] == pytest.approx(wanted)


@pytest.mark.parametrize("center", [1e-4, 3e-3, 0.1])
def test_the_suggestion_is_the_steepest_place_before_the_minimum(center: float) -> None:
    """A logistic fall over log(rate) is steepest at its center; what follows the minimum doesn't count."""
    rates = [10 ** (-6 + 7 * i / 350) for i in range(350)]
    losses = [3 / (1 + math.exp(4 * math.log(rate / center))) for rate in rates[:-20]]
    losses += [5.0] * 10 + [1.0] * 10

    assert suggestion(rates, losses) == pytest.approx(center, rel=0.05)


def test_noise_of_the_first_losses_is_no_fall() -> None:
    rates = [10 ** (-6 + 6 * i / 200) for i in range(200)]
    losses = [3 / (1 + rate / 1e-2) for rate in rates]
    noisy = smoothed([losses[0] + 1, losses[1] - 1, *losses[2:]], 0.9)

    assert suggestion(rates, noisy) > 1e-3


def test_a_run_writes_the_curve_and_stops_when_it_diverges(folder: Path, configure: Configure) -> None:
    options = ["task=classification", "debug=lr_range", "trainer=cpu", "optimizer=sgd", "scheduler.last=1e5"]
    options += ["callbacks/gradient_clip=measure", "callbacks.progress=null", "+trainer.enable_progress_bar=false"]

    run(configure("run", *options, "scheduler.first=1e-3", "trainer.max_steps=60", small=False))

    with (folder / "run" / "lr_range.csv").open() as file:
        rows = [(float(row["learning_rate"]), float(row["loss"])) for row in csv.DictReader(file)]
    factors = [later[0] / sooner[0] for sooner, later in pairwise(rows)]
    assert factors == pytest.approx([1e8 ** (1 / 59)] * len(factors))
    assert 5 < len(rows) < 60
    assert rows[0][1] == pytest.approx(math.log(10), abs=0.2)
    assert (folder / "run" / "lr_range.png").stat().st_size > 5000
    assert "optimizer.lr=" in json.loads((folder / "run" / "summary.json").read_text())["suggested"]


@pytest.mark.parametrize("wrong", [{"diverged": 1.0}, {"smoothing": 1.0}, {"smoothing": -0.1}])
def test_wrong_options_are_refused(wrong: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be above 1"):
        LearningRateRange(tmp_path, **wrong)


@pytest.mark.parametrize(("first", "last"), [(0.0, 1.0), (1.0, 1.0), (1e-3, math.inf)])
def test_a_range_needs_two_rates(first: float, last: float) -> None:
    with pytest.raises(ValueError, match="must be above 0 and below"):
        Range(first, last)
