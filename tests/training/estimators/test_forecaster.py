"""The forecaster: series in any form, horizons, quantiles, persistence."""

import pickle
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from unrolled.checkpoint import load_bundle
from unrolled.deployment.forecasting import forecast
from unrolled.processing.series.table import TimeSeries
from unrolled.training.estimators import RecurrentForecaster

SMALL: dict[str, Any] = {"horizon": 6, "context": 24, "hidden_size": 8, "max_epochs": 8, "random_state": 0}
YEARS = 50 + 10 * np.sin(np.arange(144) * 2 * np.pi / 12)


@pytest.fixture(scope="module")
def fitted() -> RecurrentForecaster:
    return RecurrentForecaster(**{**SMALL, "hidden_size": 16, "max_epochs": 30, "learning_rate": 0.02}).fit(YEARS)


def test_it_learns_a_season(fitted: RecurrentForecaster) -> None:
    quantiles = fitted.predict_quantiles(YEARS, levels=[0.1, 0.5, 0.9])

    assert fitted.score(YEARS) > 0.9
    assert fitted.predict(YEARS).shape == (6,)
    assert quantiles.shape == (6, 3)
    assert (np.diff(quantiles, axis=1) >= 0).all()


def test_the_same_series_in_any_form_have_the_same_forecast(fitted: RecurrentForecaster) -> None:
    expected = fitted.predict(YEARS)

    for given in (YEARS.tolist(), torch.from_numpy(YEARS), pd.Series(YEARS)):
        np.testing.assert_array_equal(fitted.predict(given), expected)
    np.testing.assert_array_equal(fitted.predict(YEARS[:, None])[:, 0], expected)
    np.testing.assert_array_equal(fitted.predict(pd.DataFrame({"target": YEARS}))[:, 0], expected)
    np.testing.assert_array_equal(fitted.predict(YEARS[-24:]), expected)  # the context alone is read
    several = fitted.predict([YEARS, YEARS[:100]])
    assert [each.shape for each in several] == [(6,), (6,)]


def test_a_saved_forecaster_forecasts_the_same(fitted: RecurrentForecaster, tmp_path: Path) -> None:
    expected = fitted.predict(YEARS)
    fitted.save(tmp_path / "years.ckpt")
    loaded = RecurrentForecaster.load(tmp_path / "years.ckpt")
    none = torch.zeros(len(YEARS), 0, dtype=torch.float64)
    series = TimeSeries("", 0, torch.from_numpy(YEARS)[:, None], none, none, (), "years")

    np.testing.assert_array_equal(loaded.predict(YEARS), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(YEARS), expected)
    assert [step.value for step in forecast(load_bundle(tmp_path / "years.ckpt"), [series])] == expected.tolist()


def test_several_series_with_several_targets_and_dates() -> None:
    days = [datetime(2024, 1, 1) + timedelta(days=day) for day in range(60)]
    frames = [pd.DataFrame({"day": days, "a": YEARS[:60] * k, "b": YEARS[60:120]}) for k in (1, 2)]
    model = RecurrentForecaster(**{**SMALL, "max_epochs": 1}, time="day").fit(frames)

    assert model.targets_ == ["a", "b"]
    assert str(model.bundle_.processor.source.frequency) == "1 day"
    assert [each.shape for each in model.predict(frames)] == [(6, 2), (6, 2)]


@pytest.mark.parametrize(
    ("x", "parameters", "message"),
    [
        (YEARS[:6], {}, "horizon=6 is too long: a series of 6 steps has at most 5 to predict"),
        (YEARS, {"horizon": 0}, "horizon=0 must be a whole number, 1 or more"),
        ([*YEARS[:20], np.nan], {}, "Input contains NaN: step 20"),
        ([], {}, "X is empty"),
        (None, {}, "X is None: expected series of numbers"),
        (pd.DataFrame({"a": YEARS}), {"time": "day"}, "X has no column 'day'; the columns are a"),
    ],
)
def test_series_that_cannot_be_used_are_refused(x: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentForecaster(**{**SMALL, **parameters}).fit(x)


def test_other_targets_are_refused(fitted: RecurrentForecaster) -> None:
    with pytest.raises(ValueError, match="X has the targets a, but RecurrentForecaster was trained on target"):
        fitted.predict(pd.DataFrame({"a": YEARS}))
    with pytest.raises(ValueError, match="a series of 6 steps is too short to score horizon=6"):
        fitted.score(YEARS[:6])
