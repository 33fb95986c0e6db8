"""Quantiles: the pinball loss, its minimum, the median, draws."""

from typing import Any

import pytest
import torch

from unrolled import QuantileHead

QUANTILES = (0.05, 0.3, 0.5, 0.9)


def test_the_loss_is_the_pinball_loss(generator: torch.Generator) -> None:
    head = QuantileHead(4, 2, quantiles=QUANTILES)
    parameters = torch.randn(5, 8, dtype=torch.float64, generator=generator)
    targets = torch.randn(5, 2, dtype=torch.float64, generator=generator)

    losses = head.losses(parameters, targets)

    for row in range(5):
        expected = 0.0
        for output in range(2):
            for place, q in enumerate(QUANTILES):
                error = float(targets[row, output] - parameters[row, output * 4 + place])
                expected += q * error if error > 0 else (q - 1) * error
        assert float(losses[row]) == pytest.approx(expected, abs=1e-14)


def test_the_best_constants_are_the_quantiles_of_the_targets(generator: torch.Generator) -> None:
    targets = torch.randn(1001, 1, dtype=torch.float64, generator=generator)
    head = QuantileHead(4, 1, quantiles=QUANTILES)
    best = torch.quantile(targets[:, 0], torch.tensor(QUANTILES).double())

    at_best = head.loss(best.expand(1001, 4), targets).total

    for place in range(4):
        for step in (-0.05, 0.05):
            moved = best.clone()
            moved[place] += step
            assert head.loss(moved.expand(1001, 4), targets).total > at_best


def test_extreme_quantiles_stay_themselves_in_bfloat16() -> None:
    head = QuantileHead(4, 1, quantiles=(0.5, 0.999)).bfloat16()

    loss = head.losses(torch.zeros(1, 2, dtype=torch.bfloat16), torch.tensor([[-1.0]]))

    assert float(loss) == pytest.approx(0.5 + 0.001, abs=1e-7)


def test_the_prediction_is_the_median_and_draws_lie_between_the_quantiles(generator: torch.Generator) -> None:
    head = QuantileHead(4, 2, quantiles=QUANTILES)
    values = torch.tensor([[-2.0, -1.0, 0.5, 4.0], [10.0, 11.0, 12.0, 13.0]]).double()

    drawn = head.sample(values.flatten().expand(40_000, -1), generator)

    assert head.predict(values.flatten()).tolist() == [0.5, 12.0]
    assert torch.equal(head.values(values.flatten()), values)
    for output in range(2):
        assert drawn[:, output].min() == values[output, 0]
        assert drawn[:, output].max() == values[output, -1]
        # Four standard deviations of a share over 40,000 draws.
        for q, value in zip(QUANTILES, values[output], strict=True):
            share = (drawn[:, output] <= value).double().mean().item() if q < 0.9 else None
            assert share is None or share == pytest.approx(q, abs=4 * (q * (1 - q) / 40_000) ** 0.5)
    assert (drawn[:, 0] < values[0, -1]).double().mean().item() == pytest.approx(0.9, abs=0.006)


def test_crossed_quantiles_are_drawn_in_order(generator: torch.Generator) -> None:
    head = QuantileHead(4, 1)

    drawn = head.sample(torch.tensor([3.0, 1.0, 2.0]).expand(4000, -1), generator)

    assert (drawn.min(), drawn.max()) == (1.0, 3.0)
    assert (drawn <= 2.0).double().mean().item() == pytest.approx(0.5, abs=4 * (0.25 / 4000) ** 0.5)


@pytest.mark.parametrize("quantiles", [(), (0.1, 0.9), (0.5, 0.1), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0)])
def test_quantiles_that_cannot_be_are_refused(quantiles: Any) -> None:
    with pytest.raises(ValueError, match=r"ascending numbers between 0 and 1, with 0.5, the median"):
        QuantileHead(4, 1, quantiles=quantiles)
