"""Metrics and baselines against scikit-learn, scipy and numpy."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, mean_pinball_loss

from unrolled import Frequency, NormalHead, SeriesColumns, SeriesTransform, TimeSeries
from unrolled_tasks.forecasting import metrics
from unrolled_tasks.forecasting.baselines import LinearBaseline, naive, seasonal_naive
from unrolled_tasks.forecasting.task import LEVELS


def test_pinball_is_that_of_scikit_learn() -> None:
    targets, quantiles = torch.randn(50), torch.randn(50, 3)
    found = metrics.pinball(quantiles, targets, (0.1, 0.5, 0.8)).mean(0)
    for place, level in enumerate((0.1, 0.5, 0.8)):
        assert float(found[place]) == pytest.approx(mean_pinball_loss(targets, quantiles[:, place], alpha=level))


def test_crps_tends_to_the_closed_form_of_the_normal_distribution() -> None:
    """Gneiting & Raftery 2007, eq. 21."""
    targets = torch.tensor([-1.5, 0.2, 3.0], dtype=torch.float64)
    z = targets.numpy()
    closed = z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)

    def distance(x: float, y: float) -> float:
        return float(stats.norm.cdf(x) - (x >= y)) ** 2

    integral = [integrate.quad(distance, -12, 12, args=(y,), points=[y])[0] for y in z]
    np.testing.assert_allclose(closed, integral, rtol=1e-6)

    def found(levels: list[float]) -> np.ndarray:
        quantiles = torch.tensor(stats.norm.ppf(levels)).expand(3, -1)
        return metrics.continuous_ranked_probability(quantiles, targets, levels).numpy()

    np.testing.assert_allclose(found([(n + 0.5) / 2000 for n in range(2000)]), closed, rtol=1e-3)
    np.testing.assert_allclose(found(list(LEVELS)), closed, rtol=0.06)  # what the test reports, with 19 levels


def test_symmetric_error_coverage_and_scale() -> None:
    values, targets = torch.tensor([1.0, 0.0, -2.0]), torch.tensor([3.0, 0.0, 2.0])
    torch.testing.assert_close(metrics.symmetric_error(values, targets), torch.tensor([100.0, 0.0, 200.0]))
    assert metrics.covered(values, values + 2, targets).tolist() == [1, 1, 0]
    series = torch.tensor([1.0, 2.0, 4.0, torch.nan, 3.0, 2.0]).unsqueeze(-1).double()
    assert float(metrics.seasonal_scale(series, 2)) == pytest.approx((3 + 1) / 2)
    assert bool(metrics.seasonal_scale(series[:2], 2).isnan().all())


def test_normal_intervals_cover_what_they_promise() -> None:
    head = NormalHead(2, 1)
    parameters = torch.tensor([0.3, 0.7]).expand(4000, -1)
    drawn = head.sample(parameters, torch.Generator().manual_seed(0))[:, 0]
    lower, upper = head.quantiles_at(parameters, (0.1, 0.9))[:, 0].unbind(-1)
    assert float(metrics.covered(lower, upper, drawn).mean()) == pytest.approx(0.8, abs=0.02)


def test_naive_forecasts_by_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    past, observed = torch.randn(40, 9, 2, generator=generator), torch.rand(40, 9, 2, generator=generator) > 0.4
    lengths = torch.randint(1, 10, (40,), generator=generator)
    observed &= (torch.arange(9) < lengths.unsqueeze(1)).unsqueeze(-1)
    for season in (1, 3, 4):
        found = seasonal_naive(past, observed, lengths, 5, season)
        for row in range(40):
            for target in range(2):
                seen = [t for t in range(9) if observed[row, t, target]]
                for step in range(5):
                    same = [t for t in seen if (int(lengths[row]) + step - t) % season == 0] or seen
                    expected = float(past[row, same[-1], target]) if same else 0.0
                    assert float(found[row, step, target]) == expected
        if season == 1:
            assert torch.equal(found, naive(past, observed, lengths, 5))


def test_the_linear_baseline_is_ridge_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(120, 1, generator=generator).double().cumsum(0)
    series = TimeSeries("", 0, values, values[:, :0], values[:, :0], (), "here")
    made = SeriesTransform.fit([series], SeriesColumns(), Frequency(1, "step"), context=6, horizon=3)
    encoded = made.encode(series)

    found = LinearBaseline.fit([encoded], made)

    y = encoded.targets[:, 0].double().numpy()
    rows = []
    for origin in range(1, 118):
        context = np.concatenate([np.zeros(max(0, 6 - origin)), y[max(0, origin - 6) : origin]])
        rows.append((context - context[-1], y[origin : origin + 3] - context[-1]))
    x, targets = np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])
    ridge = Ridge(alpha=1.0, fit_intercept=False).fit(np.c_[x, np.ones(len(x))], targets)
    np.testing.assert_allclose(found.weight.numpy(), ridge.coef_.T, atol=1e-5)
    forecast = found(encoded.past[None, 50:60, :1], torch.tensor([10]))[0, :, 0].numpy()
    expected = ridge.predict(np.r_[y[54:60] - y[59], 1][None])[0] + y[59]
    np.testing.assert_allclose(forecast, expected, atol=1e-4)
    assert mean_absolute_error(expected, forecast) < 1e-4


def test_the_greatest_errors_are_of_windows_that_do_not_overlap() -> None:
    errors = [5.0, 9.0, 8.0, 1.0, 7.0]

    one = [("a", origin) for origin in (0, 1, 2, 3, 4)]
    assert metrics.greatest(errors, one, 3, horizon=2) == [1, 4]
    assert metrics.greatest(errors, one, 3, horizon=1) == [1, 2, 4]
    several = [("a", 0), ("a", 50), ("b", 0), ("c", 0), ("b", 50)]
    assert metrics.greatest(errors, several, 3, horizon=1) == [1, 2, 3]
