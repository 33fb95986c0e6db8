"""Normal and Student-t heads against torch.distributions and scipy."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from unrolled import NormalHead, NumbersHead, QuantileHead, StudentTHead
from unrolled.heads.location_scale import inverse_softplus, student_t_quantiles

HEADS = [NormalHead, StudentTHead]
LEVELS = [0.001, 0.025, 0.1, 0.5, 0.8, 0.999]


@pytest.mark.parametrize("head", HEADS)
def test_losses_are_negative_log_densities(head: type[NormalHead | StudentTHead]) -> None:
    made = head(3, 2).double()
    parameters = 3 * torch.randn(4, 5, made.output_size, dtype=torch.float64)
    targets = 10 * torch.randn(4, 5, 2, dtype=torch.float64)

    torch.testing.assert_close(made.losses(parameters, targets), -made.distribution(parameters).log_prob(targets))
    parameters.requires_grad_()
    assert torch.autograd.gradcheck(partial(made.losses, targets=targets), (parameters,))


@pytest.mark.parametrize("freedom", [2.01, 3.0, 10.0, 300.0, 1e5])
def test_quantiles_of_student_t_are_those_of_scipy(freedom: float) -> None:
    levels = torch.tensor([1e-5, *LEVELS, 1 - 1e-5], dtype=torch.float64)

    found = student_t_quantiles(levels, torch.tensor([freedom], dtype=torch.float64))

    np.testing.assert_allclose(found[0], stats.t.ppf(levels.numpy(), freedom), rtol=1e-6, atol=1e-9)


def test_quantiles_of_the_normal_head_are_those_of_scipy() -> None:
    made = NormalHead(3, 1)
    parameters = torch.tensor([2.0, inverse_softplus(torch.tensor(0.5))])

    np.testing.assert_allclose(made.quantiles_at(parameters, LEVELS)[0], stats.norm.ppf(LEVELS, 2.0, 0.5), rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_samples_have_the_predicted_distribution(head: type[NormalHead | StudentTHead]) -> None:
    made = head(3, 1)
    parameters = torch.tensor([1.0, 0.5, 1.0][: made.output_size])
    drawn = made.sample(parameters.expand(20_000, -1), torch.Generator().manual_seed(0))[:, 0]

    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    below = (drawn.unsqueeze(-1) <= made.quantiles_at(parameters, levels)[0]).double().mean(0)
    np.testing.assert_allclose(below, levels, atol=0.012)  # four standard errors
    cold = made.sample(made.sharpen(parameters, 0.0).expand(100, -1))
    assert bool((cold == 1.0).all())
    torch.testing.assert_close(made.sharpen(parameters, 1.0), parameters)


def test_quantiles_between_predicted_ones_are_interpolated() -> None:
    made = QuantileHead(3, 1, quantiles=(0.1, 0.5, 0.9))
    parameters = torch.tensor([3.0, 1.0, 5.0])  # crossed: they are put in order

    found = made.quantiles_at(parameters, [0.1, 0.3, 0.5, 0.8, 0.9])

    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0, 3.0, 4.5, 5.0]]))
    with pytest.raises(ValueError, match=r"quantile 0\.95 is outside of what this network predicts, 0\.1 to 0\.9"):
        made.quantiles_at(parameters, [0.95])
    with pytest.raises(NotImplementedError, match="NumbersHead predicts no quantiles"):
        NumbersHead(3, 1).quantiles_at(torch.zeros(1), [0.5])


def test_what_is_masked_may_be_nan() -> None:
    made = StudentTHead(3, 2)
    parameters = torch.randn(4, 6, requires_grad=True)
    targets, mask = torch.randn(4, 2), torch.tensor([[True, False], [True, True], [False, False], [False, True]])
    broken = targets.masked_fill(~mask, torch.nan)

    loss = made.loss(parameters, broken, mask)
    loss.total.backward()

    assert int(loss.count) == 3
    assert parameters.grad is not None
    assert bool(parameters.grad.isfinite().all())


def test_wrong_options_are_answered() -> None:
    with pytest.raises(ValueError, match="min_scale is 0"):
        partial(NormalHead, num_outputs=1, min_scale=0.0)(input_size=2)
