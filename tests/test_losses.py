"""The masked cross-entropy against torch's, and against the laws of sums and counts."""

import pytest
import torch
from torch import Tensor, nn

from unrolled import Loss, ShapeError, coverage_loss, cross_entropy, doubly_stochastic_loss


@pytest.fixture
def logits(generator: torch.Generator) -> Tensor:
    return torch.randn(3, 5, 7, dtype=torch.float64, generator=generator)


@pytest.fixture
def targets(generator: torch.Generator) -> Tensor:
    return torch.randint(7, (3, 5), generator=generator)


MASK = torch.tensor([[True] * 5, [True, True, False, False, False], [False] * 5])


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mask", [None, MASK])
def test_the_total_is_torchs_over_the_predictions_that_count(
    logits: Tensor, targets: Tensor, mask: Tensor | None, label_smoothing: float
) -> None:
    loss = cross_entropy(logits, targets, mask, label_smoothing)

    counted = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask
    oracle = nn.CrossEntropyLoss(reduction="none", label_smoothing=label_smoothing)
    losses = oracle(logits[counted], targets[counted])
    torch.testing.assert_close(loss.total, losses.sum(), rtol=0, atol=1e-12)
    torch.testing.assert_close(loss.mean, losses.mean(), rtol=0, atol=1e-14)
    assert loss.count == counted.sum()


def test_what_is_masked_never_matters(logits: Tensor, targets: Tensor) -> None:
    poisoned = logits.masked_fill(~MASK.unsqueeze(-1), torch.nan).requires_grad_()
    logits.requires_grad_()

    clean = cross_entropy(logits, targets, MASK)
    loss = cross_entropy(poisoned, targets.masked_fill(~MASK, -1), MASK)
    clean.total.backward()
    loss.total.backward()

    assert loss.total == clean.total
    assert poisoned.grad is not None
    assert logits.grad is not None
    assert torch.equal(poisoned.grad, logits.grad)
    assert not poisoned.grad[~MASK].any()


def test_the_merged_loss_is_the_loss_of_the_joined_batch(logits: Tensor, targets: Tensor) -> None:
    parts = [cross_entropy(logits[rows], targets[rows], MASK[rows]) for rows in (slice(0, 1), slice(1, 3))]

    merged = parts[0].merge(parts[1])

    whole = cross_entropy(logits, targets, MASK)
    torch.testing.assert_close(merged.total, whole.total, rtol=0, atol=1e-13)
    assert merged.count == whole.count


def test_the_mean_of_nothing_is_zero(logits: Tensor, targets: Tensor) -> None:
    loss = cross_entropy(logits, targets, torch.zeros_like(MASK))

    assert loss.mean == 0
    assert Loss(torch.tensor(3.0), torch.tensor(2)).mean == 1.5


def test_a_target_that_no_class_has_is_an_error_where_it_counts(logits: Tensor, targets: Tensor) -> None:
    targets[0, 0] = -100  # what torch would skip in silence

    with pytest.raises(IndexError, match="Target -100 is out of bounds"):
        cross_entropy(logits, targets, MASK)


def test_axes_that_do_not_belong_together_are_refused(logits: Tensor, targets: Tensor) -> None:
    with pytest.raises(ShapeError, match=r"targets has the shape \(3, 4\), expected \(batch=3, time=5\)"):
        cross_entropy(logits, targets[:, :4])
    with pytest.raises(ShapeError, match=r"mask has the shape \(2, 5\)"):
        cross_entropy(logits, targets, MASK[:2])


def test_looking_again_costs_what_was_already_covered(generator: torch.Generator) -> None:
    weights = torch.rand(3, 5, 4, dtype=torch.float64, generator=generator).softmax(-1)

    loss = coverage_loss(weights, MASK)

    expected = 0.0
    for row, length in enumerate([5, 2, 0]):
        covered = torch.zeros(4).double()
        for time in range(length):
            expected += float(torch.minimum(weights[row, time], covered).sum())
            covered = covered + weights[row, time]
    assert loss.total.item() == pytest.approx(expected, abs=1e-14)
    assert loss.count == 7
    assert coverage_loss(weights).count == 15
    assert coverage_loss(torch.eye(4).unsqueeze(0)).total == 0  # each place once


def test_steps_that_do_not_count_cover_nothing_and_may_be_nan(generator: torch.Generator) -> None:
    weights = torch.rand(3, 5, 4, generator=generator)
    poisoned = weights.masked_fill(~MASK.unsqueeze(-1), torch.nan).requires_grad_()

    loss = coverage_loss(poisoned, MASK)
    loss.total.backward()

    assert loss.total == coverage_loss(weights, MASK).total
    assert poisoned.grad is not None
    assert poisoned.grad.isfinite().all()
    with pytest.raises(ShapeError, match=r"mask has the shape \(2, 5\)"):
        coverage_loss(weights, MASK[:2])


def test_the_doubly_stochastic_loss_is_that_of_the_paper() -> None:
    weights = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0], [9.0, 9.0, 9.0]]])
    mask = torch.tensor([[True, True], [True, False]])

    loss = doubly_stochastic_loss(weights, mask)

    # Sums over time 0.5, 1.5, 0 and 1, 0, 0.
    assert float(loss.total) == pytest.approx(0.25 + 0.25 + 1 + 0 + 1 + 1)
    assert int(loss.count) == 2
    assert float(doubly_stochastic_loss(torch.full((2, 4, 4), 0.25)).total) == 0.0
