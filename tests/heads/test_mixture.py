"""Strokes by a mixture: against MultivariateNormal in float64, at saturated correlations and far targets, sharpened."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, MixtureSameFamily, MultivariateNormal, Normal

from unrolled import MixtureHead

K = 3
HEAD = MixtureHead(4, K)
FLAT = MixtureHead(4, K, num_coordinates=1, end_of_stroke=False)


def packed(weights: Tensor, means: Tensor, log_scales: Tensor, correlations: Tensor, end: Tensor) -> Tensor:
    """Parameters in the documented order."""
    return torch.cat([weights, means.flatten(-2), log_scales.flatten(-2), correlations, end.unsqueeze(-1)], -1)


def random_parts(generator: torch.Generator, *shape: int) -> tuple[Tensor, ...]:
    sizes = ((*shape, K), (*shape, K, 2), (*shape, K, 2), (*shape, K), shape)
    return tuple(torch.randn(size, dtype=torch.float64, generator=generator) for size in sizes)


def oracle(weights: Tensor, means: Tensor, log_scales: Tensor, correlations: Tensor) -> Distribution:
    """Graves 2013, eq. 19-25, by covariances."""
    x, y = log_scales.exp().unbind(-1)
    both = torch.tanh(correlations) * x * y
    covariances = torch.stack([torch.stack([x * x, both], -1), torch.stack([both, y * y], -1)], -2)
    return MixtureSameFamily(Categorical(logits=weights), MultivariateNormal(means, covariances))


def test_losses_are_graves_equation_26(generator: torch.Generator) -> None:
    parts = random_parts(generator, 5, 7)
    targets = torch.randn(5, 7, 3, dtype=torch.float64, generator=generator)
    targets[..., 2] = (targets[..., 2] > 0).double()

    losses = HEAD.losses(packed(*parts), targets)

    density = oracle(*parts[:4]).log_prob(targets[..., :2])
    expected = -density - Bernoulli(logits=parts[4]).log_prob(targets[..., 2])
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(HEAD.distribution(packed(*parts)).log_prob(targets), -expected, rtol=1e-12, atol=1e-12)


def test_with_one_coordinate_it_is_a_mixture_over_numbers(generator: torch.Generator) -> None:
    weights, means, log_scales = torch.randn(3, 6, K, dtype=torch.float64, generator=generator)
    targets = torch.randn(6, 1, dtype=torch.float64, generator=generator)
    parameters = torch.cat([weights, means, log_scales], -1)

    expected = MixtureSameFamily(Categorical(logits=weights), Normal(means, log_scales.exp()))

    torch.testing.assert_close(FLAT.losses(parameters, targets), -expected.log_prob(targets[:, 0]))
    torch.testing.assert_close(FLAT.distribution(parameters).log_prob(targets), expected.log_prob(targets[:, 0]))
    torch.testing.assert_close(FLAT.distribution(parameters).mean[:, 0], expected.mean)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    correlation=st.floats(-1e4, 1e4),
    log_scale=st.floats(-1e4, 1e4),
    place=st.floats(-9e10, 9e10),
    weight=st.floats(-1e4, 1e4),
    seed=st.integers(0, 1000),
)
def test_losses_and_gradients_are_finite_in_float32(
    correlation: float, log_scale: float, place: float, weight: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    parts = [part.float() for part in random_parts(generator, 2)]
    parts[0][:, 0], parts[2][:, 0], parts[3][:, 0], parts[4][0] = weight, log_scale, correlation, weight
    parameters = packed(*parts).requires_grad_()
    targets = torch.tensor([[place, -place, 1.0], [place, place, 0.0]])

    losses = HEAD.losses(parameters, targets)
    losses.sum().backward()

    assert losses.isfinite().all()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()


def test_the_density_integrates_to_one(generator: torch.Generator) -> None:
    weights, means, log_scales, correlations, end = random_parts(generator, 4)
    parameters = packed(weights, means, 0.5 * log_scales.clamp(-1, 1), correlations.clamp(-2, 2), end)
    grid = torch.linspace(-14.0, 14.0, 1401, dtype=torch.float64)
    places = torch.cartesian_prod(grid, grid)

    for row in parameters:  # both ends of the stroke together are all that can happen
        total = 0.0
        for stroke_ends in (0.0, 1.0):
            targets = torch.cat([places, torch.full((len(places), 1), stroke_ends, dtype=torch.float64)], -1)
            total += float((-HEAD.losses(row.expand(len(places), -1), targets)).exp().sum() * 0.02**2)
        assert total == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("distance", [0.0, 1.0, 30.0, 1e3, 1e6])
def test_gradients_are_those_of_differences_also_far_from_the_data(distance: float, generator: torch.Generator) -> None:
    parameters = packed(*random_parts(generator, 3))
    targets = torch.tensor([[distance, -distance, 1.0], [distance, distance, 0.0], [-distance, 0.3, 1.0]]).double()
    given = parameters.clone().requires_grad_()
    HEAD.losses(given, targets).sum().backward()
    assert given.grad is not None

    step = 1e-6
    for entry in range(HEAD.output_size):
        change = torch.zeros_like(parameters)
        change[:, entry] = step
        above, below = HEAD.losses(parameters + change, targets), HEAD.losses(parameters - change, targets)
        expected = (above - below) / (2 * step)
        error = (given.grad[:, entry] - expected).abs()
        rounding = 1e-15 * HEAD.losses(parameters, targets).abs() / step  # of the difference of two large losses
        assert bool((error <= 1e-6 * expected.abs() + 10 * rounding + 1e-8).all())


@pytest.mark.parametrize("raw", [-6.0, -3.0, 0.0, 3.0, 6.0])
def test_nearly_saturated_correlations_are_exact_in_float32(raw: float) -> None:
    # 1 − tanh(6)² is 2.5e-5, which float32 gets wrong by 0.3 % when it is computed as written.
    means, log_scales = torch.tensor([[[0.3, -0.2]]]), torch.tensor([[[0.5, -1.0]]])
    head = MixtureHead(4, 1)
    target = torch.tensor([[500.0, -400.0, 0.0]])
    parameters = packed(torch.zeros(1, 1), means, log_scales, torch.tensor([[raw]]), torch.zeros(1))

    single, double = parameters.clone().requires_grad_(), parameters.double().requires_grad_()
    head.losses(single, target).sum().backward()
    exact = head.losses(double, target.double()).sum()
    exact.backward()

    x, y = torch.tensor([math.exp(0.5), math.exp(-1.0)], dtype=torch.float64)
    offsets = (target[0, :2].double() - means.double()[0, 0]) / torch.stack([x, y])
    rho, gap = math.tanh(raw), 1 / math.cosh(raw) ** 2
    exponent = (offsets.square().sum() - 2 * rho * offsets.prod()) / (2 * gap)
    expected = exponent + math.log(2 * math.pi) + (x * y).log() + 0.5 * math.log(gap) + math.log(2)
    torch.testing.assert_close(exact, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(head.losses(single, target).sum().double(), expected, rtol=3e-6, atol=0)
    assert single.grad is not None
    assert double.grad is not None
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=1e-6)


def test_second_derivatives_are_right_where_nothing_is_correlated(generator: torch.Generator) -> None:
    parts = random_parts(generator, 2)
    parts[3].zero_()
    parameters = packed(*parts).requires_grad_()
    targets = torch.randn(2, 3, dtype=torch.float64, generator=generator).sigmoid()

    assert torch.autograd.gradgradcheck(lambda given: HEAD.losses(given, targets), parameters)


def test_learning_leads_back_from_a_limit_and_not_farther_out() -> None:
    head = MixtureHead(4, 1, end_of_stroke=False)
    beyond = torch.tensor([[0.0, 0.0, 0.0, -20.0, -20.0, 20.0]], requires_grad=True)

    head.losses(beyond, torch.tensor([[3.0, -3.0]])).sum().backward()  # far, and on the other diagonal
    assert beyond.grad is not None
    inward = beyond.grad.clone()
    beyond.grad = None
    head.losses(beyond, torch.tensor([[0.0, 0.0]])).sum().backward()  # on the spot: the sharper, the better

    assert inward[0, 3] < 0  # a step against it widens,
    assert inward[0, 4] < 0
    assert inward[0, 5] > 0  # and weakens the correlation
    assert not beyond.grad[0, 3:].any()


def test_a_component_is_at_least_min_scale_wide() -> None:
    head = MixtureHead(4, 1, num_coordinates=1, end_of_stroke=False, min_scale=0.01)
    collapsed, at_limit = torch.tensor([[0.0, 0.0, -30.0], [0.0, 0.0, math.log(0.01)]])

    for target in (0.0, 0.02):
        points = torch.tensor([target])
        assert torch.equal(head.losses(collapsed, points), head.losses(at_limit, points))
        expected = Normal(0.0, 0.01).log_prob(points)
        torch.testing.assert_close(head.distribution(collapsed).log_prob(points), expected[0])


def test_sharpening_is_graves_bias(generator: torch.Generator) -> None:
    weights, means, log_scales, correlations, end = random_parts(generator, 5)
    bias = 1.5

    found = HEAD.sharpen(packed(weights, means, log_scales, correlations, end), 1 / (1 + bias))

    expected = packed(weights * (1 + bias), means, log_scales - bias, correlations, end * (1 + bias))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_prediction_is_the_heaviest_components_mean(generator: torch.Generator) -> None:
    parts = random_parts(generator, 20)

    found = HEAD.predict(packed(*parts))

    for row in range(20):
        assert found[row].tolist() == [*parts[1][row, int(parts[0][row].argmax())].tolist(), float(parts[4][row] > 0)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_components": 0}, "num_components is 0, expected 1 or more"),
        ({"num_components": 2, "num_coordinates": 3}, "num_coordinates is 3, expected 1 or 2"),
        ({"num_components": 2, "min_scale": 0.0}, "min_scale is 0.0, expected a number above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureHead(4, **options)


def test_an_end_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match="targets go from 2 to 2, expected 0 to 1"):
        HEAD.losses(torch.zeros(HEAD.output_size), torch.tensor([0.0, 0.0, 2.0]))
