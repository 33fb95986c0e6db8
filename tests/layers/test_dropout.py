"""Dropout of features and of whole tokens."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from unrolled import SequenceDropout, TokenDropout

ONES = torch.ones(50, 40, 6)


def test_tokens_are_dropped_whole_and_the_others_stay_as_they_are() -> None:
    torch.manual_seed(0)

    dropped = TokenDropout(0.3)(ONES)

    assert torch.equal(dropped, dropped[..., :1].expand_as(dropped))
    assert set(dropped.unique().tolist()) == {0.0, 1.0}
    # Four standard deviations of a share of 0.3 over 2000 tokens.
    assert dropped.mean().item() == pytest.approx(0.7, abs=4 * (0.21 / 2000) ** 0.5)


@pytest.mark.parametrize("variational", [True, False])
def test_features_are_dropped_for_all_steps_or_for_each(variational: bool) -> None:
    torch.manual_seed(0)

    dropped = SequenceDropout(0.5, variational=variational)(ONES)

    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped)) == variational


@pytest.mark.parametrize("make", [SequenceDropout, partial(SequenceDropout, variational=True), TokenDropout])
def test_a_seed_determines_the_masks_whatever_the_order_of_the_memory(make: Callable[..., torch.nn.Module]) -> None:
    dropped = []
    for values in (ONES, ONES.transpose(0, 1).contiguous().transpose(0, 1)):
        torch.manual_seed(0)
        dropped.append(make(0.5)(values))

    assert torch.equal(*dropped)


@pytest.mark.parametrize("make", [SequenceDropout, TokenDropout])
def test_nothing_is_dropped_in_evaluation_or_at_probability_zero(make: type) -> None:
    assert make(0.9).eval()(ONES) is ONES
    assert make(0.0)(ONES) is ONES
    with pytest.raises(ValueError, match=r"dropout is 1\.5, expected a probability in \[0, 1\)"):
        make(1.5)
