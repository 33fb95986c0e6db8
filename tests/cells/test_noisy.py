"""Dropout on the candidate and zoneout: what they do to a step, how often, and to whom."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import ElmanCell, GRUCell, IndRNNCell, LSTMCell, LSTMState, NoisyCell, PeepholeLSTMCell, Recurrent, unroll
from unrolled.backends import choose
from unrolled.state import leaves, map_state

NOISY = [ElmanCell, GRUCell, LSTMCell, PeepholeLSTMCell, IndRNNCell]
Make = Callable[..., NoisyCell]


def random_state(cell: NoisyCell, batch: int) -> Any:
    return map_state(torch.randn_like, cell.initial_state(batch, like=cell.weight_ih))


@pytest.mark.parametrize("make", NOISY)
def test_zoneout_keeps_or_changes_each_element(make: Make) -> None:
    torch.manual_seed(0)
    cell = make(3, 50, zoneout=0.3).double()
    inputs, old = torch.randn(40, 3, dtype=torch.float64), random_state(cell, 40)

    output, new = cell(inputs, old)

    cell.zoneout = (0.0, 0.0)
    _, unzoned = cell(inputs, old)
    kept = new.h == old.h
    assert torch.equal(new.h[~kept], unzoned.h[~kept])
    assert kept.double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert output is new.h


@pytest.mark.parametrize("make", NOISY)
def test_zoneout_is_the_average_in_evaluation_mode(make: Make) -> None:
    torch.manual_seed(0)
    cell = make(3, 5, zoneout=0.3).double().eval()
    inputs, old = torch.randn(4, 3, dtype=torch.float64), random_state(cell, 4)

    output, new = cell(inputs, old)

    cell.zoneout = (0.0, 0.0)
    _, unzoned = cell(inputs, old)
    torch.testing.assert_close(new.h, 0.3 * old.h + 0.7 * unzoned.h, rtol=0, atol=1e-14)
    assert output is new.h


def test_h_and_c_are_zoned_out_apart_and_h_sees_the_new_c() -> None:
    torch.manual_seed(0)
    cell = LSTMCell(3, 50, zoneout=0.1, zoneout_c=0.6).double()
    inputs = torch.randn(40, 3, dtype=torch.float64)
    old = LSTMState(*torch.randn(2, 40, 50, dtype=torch.float64))

    _, new = cell(inputs, old)

    kept_h, kept_c = new.h == old.h, new.c == old.c
    assert kept_h.double().mean().item() == pytest.approx(0.1, abs=0.03)
    assert kept_c.double().mean().item() == pytest.approx(0.6, abs=0.03)
    assert (kept_h & kept_c).double().mean().item() == pytest.approx(0.06, abs=0.02)
    # Krueger et al. 2017, eq. 5: h is written from the cell as it would have been.
    cell.zoneout = (0.0, 0.0)
    assert torch.equal(new.h[~kept_h], cell(inputs, old)[1].h[~kept_h])


@pytest.mark.parametrize("make", NOISY)
def test_a_dropped_candidate_brings_nothing_new(make: Make) -> None:
    torch.manual_seed(0)
    cell = make(3, 50, candidate_dropout=0.25).double()
    inputs, old = torch.randn(40, 3, dtype=torch.float64), random_state(cell, 40)
    projected = cell.project(inputs)
    mask = projected[:, -50:].clone()
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert mask.mean().item() == pytest.approx(1.0, abs=0.05)

    _, new = cell.step(projected, old)

    # What a mask of zeros gives is what stands where this one has a zero, and only there.
    projected[:, -50:] = 0.0
    _, nothing = cell.step(projected, old)
    changes = (new[-1] - nothing[-1]).abs()  # c, or h where that is all
    assert not changes[mask == 0].any()
    assert (changes[mask > 0] > 0).float().mean() > 0.5  # a rectifier may have nothing to say


@pytest.mark.parametrize("option", ["candidate_dropout", "zoneout"])
@pytest.mark.parametrize("make", NOISY)
def test_masks_are_new_at_each_step_and_absent_in_evaluation(make: Make, option: str) -> None:
    torch.manual_seed(0)
    cell = make(3, 50, **{option: 0.5})
    inputs = torch.zeros(4, 6, 3)

    masks = cell.project(inputs)[..., cell.gates * 50 :]

    assert masks.shape == (4, 6, 50)
    assert not any(torch.equal(masks[:, 0], masks[:, step]) for step in range(1, 6))
    assert cell.eval().project(inputs).shape == (4, 6, cell.gates * 50)


@pytest.mark.parametrize("make", NOISY)
@pytest.mark.parametrize("option", ["candidate_dropout", "zoneout"])
@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_probabilities_are_probabilities(make: Make, option: str, probability: float) -> None:
    with pytest.raises(ValueError, match=f"{option} is {probability}, expected a probability"):
        make(3, 4, **{option: probability})


@pytest.mark.parametrize("make", NOISY)
def test_gradients_are_exact_under_all_noise(make: Make, generator: torch.Generator) -> None:
    cell = make(3, 4, candidate_dropout=0.3, zoneout=0.3).double()
    inputs = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator, requires_grad=True)

    def run(inputs: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(1)
        outputs, state = unroll(cell, inputs)
        return outputs, *leaves(state)

    assert torch.autograd.gradcheck(run, (inputs,))


@pytest.mark.parametrize(
    ("options", "training", "evaluation"),
    [
        ({"candidate_dropout": 0.5}, "do not support dropout within a step (candidate_dropout=0.5)", None),
        ({"zoneout": 0.5}, "do not support zoneout", "do not support zoneout"),
    ],
)
def test_the_fused_kernel_steps_aside(options: dict[str, float], training: str, evaluation: str | None) -> None:
    cell, inputs = LSTMCell(3, 5, **options), torch.zeros(2, 4, 3)

    with pytest.raises(ValueError, match=re.escape(training)):
        choose("fused", cell.train(), inputs)
    if evaluation is None:
        assert choose("fused", cell.eval(), inputs).backend == "fused"
    else:
        with pytest.raises(ValueError, match=re.escape(evaluation)):
            choose("fused", cell.eval(), inputs)


def test_noise_goes_through_a_stack_in_both_directions() -> None:
    torch.manual_seed(0)
    network = Recurrent(partial(LSTMCell, zoneout=0.2, candidate_dropout=0.2), 3, 5, 2, bidirectional=True)
    inputs = torch.randn(4, 7, 3)
    lengths = torch.tensor([7, 0, 1, 4])

    one, other = network(inputs, lengths=lengths)[0], network(inputs, lengths=lengths)[0]

    assert not torch.equal(one, other)
    network.eval()
    assert torch.equal(network(inputs, lengths=lengths)[0], network(inputs, lengths=lengths)[0])
