"""CTC against all paths, against torch's loss, and in what it refuses."""

import math
from itertools import groupby, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unrolled import CTCHead, ShapeError
from unrolled.sequences import mask_from_lengths

HEAD = CTCHead(4, 5)


def batch(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Parameters and targets with their lengths; the last row is empty on both sides."""
    parameters = torch.randn(4, 9, 5, dtype=torch.float64, generator=generator)
    targets = torch.tensor([[1, 2, 2, 4], [3, 3, 3, 1], [4, 1, 1, 1], [2, 2, 2, 2]])
    return parameters, targets, torch.tensor([9, 6, 2, 0]), torch.tensor([4, 3, 1, 0])


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [label for label, _ in groupby(path) if label != 0]


def test_losses_sum_over_all_ways_to_spread_a_transcript(generator: torch.Generator) -> None:
    head = CTCHead(4, 3)
    parameters = torch.randn(3, 4, 3, dtype=torch.float64, generator=generator)
    transcripts = [[1, 2], [1, 1], []]
    targets = torch.tensor([[1, 2], [1, 1], [0, 0]])

    losses = head.losses(parameters, targets, None, mask_from_lengths(torch.tensor([2, 2, 0]), 2))

    shares = parameters.softmax(-1)
    for row, transcript in enumerate(transcripts):
        paths = (path for path in product(range(3), repeat=4) if collapsed(path) == transcript)
        total = sum(math.prod(float(shares[row, t, label]) for t, label in enumerate(path)) for path in paths)
        assert float(losses[row]) == pytest.approx(-math.log(total), abs=1e-12)


def test_losses_are_torchs(generator: torch.Generator) -> None:
    parameters, targets, frames, labels = batch(generator)
    mask, target_mask = mask_from_lengths(frames, 9), mask_from_lengths(labels, 4)

    loss = HEAD.loss(parameters, targets, mask, target_mask)

    oracle = nn.CTCLoss(reduction="none")(parameters.log_softmax(-1).transpose(0, 1), targets, frames, labels)
    torch.testing.assert_close(HEAD.losses(parameters, targets, mask, target_mask), oracle, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss.total, oracle.sum(), rtol=1e-12, atol=1e-12)
    assert loss.count == 3  # the sequence without a frame is none
    assert HEAD.loss(parameters[:3, :, :], targets[:3, :2]).count == 3


def test_gradients_are_those_of_differences(generator: torch.Generator) -> None:
    parameters, targets, frames, labels = batch(generator)
    masks = mask_from_lengths(frames, 9), mask_from_lengths(labels, 4)

    assert torch.autograd.gradcheck(
        lambda given: HEAD.loss(given, targets, *masks).total, parameters.requires_grad_(), fast_mode=True
    )


def test_what_is_masked_may_be_anything_and_reaches_nothing(generator: torch.Generator) -> None:
    parameters, targets, frames, labels = batch(generator)
    mask, target_mask = mask_from_lengths(frames, 9), mask_from_lengths(labels, 4)
    poisoned = parameters.masked_fill(~mask.unsqueeze(-1), torch.nan).requires_grad_()
    clean = parameters.clone().requires_grad_()

    loss = HEAD.loss(poisoned, targets.masked_fill(~target_mask, -99), mask, target_mask)
    loss.total.backward()
    HEAD.loss(clean, targets, mask, target_mask).total.backward()

    assert loss.total == HEAD.loss(parameters, targets, mask, target_mask).total
    assert poisoned.grad is not None
    assert clean.grad is not None
    assert torch.equal(poisoned.grad, clean.grad)
    assert not poisoned.grad[~mask].any()
    spoilt = HEAD.predict(poisoned.detach(), mask)
    assert torch.equal(spoilt, HEAD.predict(parameters, mask))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), time=st.integers(0, 8))
def test_rows_are_alone_and_frames_after_the_end_are_none(seed: int, time: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parameters = torch.randn(3, time, 5, dtype=torch.float64, generator=generator)
    frames = torch.randint(0, time + 1, (3,), generator=generator)
    labels = torch.minimum(torch.randint(0, 4, (3,), generator=generator), (frames + 1) // 2)
    targets = torch.randint(1, 5, (3, 3), generator=generator)

    losses = HEAD.losses(parameters, targets, mask_from_lengths(frames, time), mask_from_lengths(labels, 3))

    for row, (steps, length) in enumerate(zip(frames.tolist(), labels.tolist(), strict=True)):
        alone = HEAD.losses(parameters[row : row + 1, :steps], targets[row : row + 1, :length])
        torch.testing.assert_close(losses[row : row + 1], alone, rtol=1e-12, atol=1e-12)


def test_the_prediction_is_the_best_path_without_repeats_and_blanks(generator: torch.Generator) -> None:
    parameters = torch.randn(50, 12, 3, generator=generator)
    lengths = torch.randint(0, 13, (50,), generator=generator)

    found = CTCHead(4, 3).predict(parameters, mask_from_lengths(lengths, 12))

    assert found.shape == (50, 12)
    for row, length in enumerate(lengths.tolist()):
        expected = collapsed(tuple(parameters[row, :length].argmax(-1).tolist()))
        assert found[row].tolist() == expected + [-1] * (12 - len(expected))
    assert HEAD.predict(torch.zeros(2, 0, 5)).shape == (2, 0)


def test_a_transcript_too_long_for_its_frames_is_refused_by_its_row() -> None:
    parameters = torch.zeros(3, 4, 5)
    targets = torch.tensor([[1, 2, 3, 4], [1, 1, 2, 0], [1, 1, 1, 2]])
    labels = mask_from_lengths(torch.tensor([4, 3, 3]), 4)

    with pytest.raises(ValueError, match="row 2 has 4 frames for a transcript of 3 labels, 2 of them repeats") as error:
        HEAD.loss(parameters, targets, None, labels)

    assert "5 frames or more; leave such examples out, or let the encoder keep more frames" in str(error.value)
    assert HEAD.losses(parameters[:2], targets[:2], None, labels[:2]).isfinite().all()


@pytest.mark.parametrize("label", [0, 5, -1])
def test_a_label_that_there_is_not_is_refused_by_its_place(label: int) -> None:
    with pytest.raises(ValueError, match=rf"targets\[1, 0\] is {label}, expected a label from 1 to 4 \(0 is the blank"):
        HEAD.loss(torch.zeros(2, 4, 5), torch.tensor([[1, 2], [label, 3]]))


def test_axes_and_masks_that_do_not_belong_together_are_refused() -> None:
    parameters, targets = torch.zeros(2, 4, 5), torch.ones(2, 1, dtype=torch.int64)

    with pytest.raises(ShapeError, match=r"parameters has the shape \(4, 5\), expected \(batch, time, outputs=5\)"):
        HEAD.loss(parameters[0], targets)
    with pytest.raises(ShapeError, match=r"targets has the shape \(3, 1\)"):
        HEAD.loss(parameters, torch.ones(3, 1, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"mask has the shape \(2, 3\)"):
        HEAD.loss(parameters, targets, torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="row 0 of the mask has a gap"):
        HEAD.loss(parameters, targets, torch.tensor([[True, False, True, True], [True] * 4]))
    with pytest.raises(ValueError, match="num_classes is 1, expected 2 or more: the blank"):
        CTCHead(4, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single(dtype: torch.dtype, generator: torch.Generator) -> None:
    parameters, targets, frames, labels = batch(generator)
    masks = mask_from_lengths(frames, 9), mask_from_lengths(labels, 4)
    half = parameters.to(dtype)

    loss = HEAD.loss(half, targets, *masks)

    assert loss.total.dtype == torch.float32
    torch.testing.assert_close(loss.total.double(), HEAD.loss(half.double(), targets, *masks).total, rtol=1e-5, atol=0)


def test_nothing_is_drawn_but_a_search_may_be_sharper(generator: torch.Generator) -> None:
    parameters = torch.randn(2, 3, 5, generator=generator)

    with pytest.raises(NotImplementedError, match="CTCHead can't be sampled; use predict"):
        HEAD.sample(parameters)
    with pytest.raises(NotImplementedError, match="CTCHead has no distribution"):
        HEAD.distribution(parameters)
    torch.testing.assert_close(HEAD.sharpen(parameters, 0.5), 2 * parameters)
    assert torch.equal(HEAD.predict(HEAD.sharpen(parameters, 0.0)), HEAD.predict(parameters))


def test_no_frame_at_all_and_no_sequence_have_gradients_too() -> None:
    for shape in ((2, 0, 5), (0, 3, 5)):
        parameters = torch.zeros(shape, requires_grad=True)
        loss = HEAD.loss(parameters, torch.zeros(shape[0], 0, dtype=torch.int64))
        loss.total.backward()
        assert loss.total == 0
