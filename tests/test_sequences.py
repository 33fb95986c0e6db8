"""Lengths, masks and padding."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled import (
    AdditiveAttention,
    AttentionPooling,
    CategoricalHead,
    FeatureEncoder,
    GRUCell,
    LastPooling,
    MaxPooling,
    MeanPooling,
    Recurrent,
    SequenceClassifier,
    ShapeError,
)
from unrolled.sequences import all_full, at_steps, last_valid, lengths_from_mask, mask_from_lengths, reverse_valid

laws = settings(deadline=None, derandomize=True, max_examples=30)
ragged = st.lists(st.integers(0, 6), min_size=1, max_size=5)


@laws
@given(ragged)
def test_lengths_and_masks_are_inverse(lengths: list[int]) -> None:
    mask = mask_from_lengths(torch.tensor(lengths), 6)

    assert mask.shape == (len(lengths), 6)
    assert lengths_from_mask(mask).tolist() == lengths


@laws
@given(ragged)
def test_reversing_twice_changes_nothing(lengths: list[int]) -> None:
    values = torch.arange(len(lengths) * 6 * 2).view(-1, 6, 2)

    once = reverse_valid(values, torch.tensor(lengths))

    assert torch.equal(reverse_valid(once, torch.tensor(lengths)), values)
    for row, length in enumerate(lengths):
        assert torch.equal(once[row, :length], values[row, :length].flip(0))
        assert torch.equal(once[row, length:], values[row, length:])


def test_without_lengths_all_of_time_is_reversed() -> None:
    values = torch.arange(6).view(1, 6)

    assert reverse_valid(values, None).tolist() == [[5, 4, 3, 2, 1, 0]]


@laws
@given(ragged)
def test_the_last_valid_step_is_the_one_before_the_padding(lengths: list[int]) -> None:
    values = torch.arange(len(lengths) * 6 * 2).view(-1, 6, 2)
    initial = -torch.ones(len(lengths), 2, dtype=torch.int64)

    last = last_valid(values, torch.tensor(lengths), initial)

    for row, length in enumerate(lengths):
        assert torch.equal(last[row], values[row, length - 1] if length else initial[row])


def test_without_any_step_the_initial_row_stays() -> None:
    initial = torch.ones(2, 3)

    assert torch.equal(last_valid(torch.zeros(2, 0, 3), torch.tensor([0, 0]), initial), initial)


def test_a_mask_with_a_gap_has_no_lengths() -> None:
    mask = torch.tensor([[True, True, False], [True, False, True]])

    with pytest.raises(ValueError, match="row 1 of the mask has a gap"):
        lengths_from_mask(mask)


@pytest.mark.parametrize("further", [(), (3,), (3, 2)])
def test_given_steps_are_taken_along_time_with_their_gradients(further: tuple[int, ...]) -> None:
    values = torch.randn(2, 5, *further, requires_grad=True)
    steps = torch.tensor([[4, 0, 4], [1, 2, 2]])
    weights = torch.randn(2, 3, *further)

    found, expected = at_steps(values, steps), values.take_along_dim(steps.view(2, 3, *[1] * len(further)), 1)

    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad((each * weights).sum(), values)[0] for each in (found, expected)]
    assert torch.equal(*gradients)
    with pytest.raises(ShapeError, match="steps"):
        at_steps(values, steps[:1])


def test_lengths_of_another_batch_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"lengths has the shape \(3,\), expected \(batch=2\)"):
        reverse_valid(torch.zeros(2, 4, 1), torch.tensor([1, 2, 3]))


def test_full_rows_are_seen_and_lengths_that_cannot_be_are_refused() -> None:
    assert all_full(torch.tensor([4, 4]), 2, 4)
    assert not all_full(torch.tensor([4, 0]), 2, 4)
    with pytest.raises(ValueError, match="lengths go from 0 to 5, expected 0 to 4"):
        all_full(torch.tensor([5, 0]), 2, 4)
    with pytest.raises(ValueError, match=r"lengths are torch.float32, expected integers"):
        all_full(torch.tensor([1.0, 2.0]), 2, 4)
    with pytest.raises(ShapeError, match="lengths has the shape"):
        all_full(torch.tensor([4, 4, 4]), 2, 4)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.uint8, torch.uint16, torch.uint32, torch.uint64])
def test_lengths_are_integers_of_any_kind(dtype: torch.dtype) -> None:
    lengths, values = torch.tensor([3, 0, 5]), torch.randn(3, 5, 2)
    other = lengths.to(dtype)

    assert not all_full(other, 3, 5)
    assert all_full(torch.full((3,), 5, dtype=dtype), 3, 5)
    assert torch.equal(mask_from_lengths(other, 5), mask_from_lengths(lengths, 5))
    assert torch.equal(reverse_valid(values, other), reverse_valid(values, lengths))
    assert torch.equal(last_valid(values, other, values[:, 0]), last_valid(values, lengths, values[:, 0]))
    with pytest.raises(ValueError, match="lengths go from 0 to 5, expected 0 to 4"):
        all_full(other, 3, 4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64])
@pytest.mark.parametrize("backend", ["auto", "loop", "fused", "compiled"])
def test_networks_take_unsigned_lengths(backend: str, dtype: torch.dtype) -> None:
    lengths, values = torch.tensor([3, 0, 17]), torch.randn(3, 17, 2)
    core = partial(Recurrent, GRUCell, hidden_size=4, backend=backend)
    encoder = FeatureEncoder(2, core, filters=3)
    for pooling in (LastPooling, MeanPooling, MaxPooling, AttentionPooling):
        network = SequenceClassifier(encoder, partial(CategoricalHead, num_classes=2), pooling).eval()
        assert torch.equal(network(values, lengths.to(dtype)), network(values, lengths))
        assert torch.equal(
            network.predict_prefixes(values, lengths.to(dtype), [0.5]), network.predict_prefixes(values, lengths, [0.5])
        )
    attention = AdditiveAttention(8, 3)
    memories = [attention.prepare(encoder(values, ends)) for ends in (lengths.to(dtype), lengths)]
    assert torch.equal(memories[0].mask, memories[1].mask)
