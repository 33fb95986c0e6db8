"""The clockwork cell: who moves when, and who sees whom."""

import pytest
import torch

from unrolled import AutoregressiveDecoder, ClockworkCell, ElmanCell, Recurrent, unroll
from unrolled.layers.encoded import Encoded
from unrolled.state import leaves


def test_a_module_moves_at_its_own_beat(generator: torch.Generator) -> None:
    # given three modules of two units each, for 12 steps
    cell = ClockworkCell(3, 6, periods=(1, 3, 4)).double()
    inputs = torch.randn(2, 12, 3, dtype=torch.float64, generator=generator)

    outputs, _ = unroll(cell, inputs)

    changed = (outputs[:, 1:] != outputs[:, :-1]).all(0)
    stayed = (outputs[:, 1:] == outputs[:, :-1]).all(0)
    assert outputs[:, 0].all()  # all move at first
    for unit, period in enumerate([1, 1, 3, 3, 4, 4]):
        for step in range(1, 12):
            moved = changed if step % period == 0 else stayed
            assert moved[step - 1, unit], (unit, step)


def test_one_step_is_its_equation(generator: torch.Generator) -> None:
    # given the published form, with t and a block-triangular matrix
    cell = ClockworkCell(3, 6, periods=(1, 2, 4)).double()
    inputs = torch.randn(2, 9, 3, dtype=torch.float64, generator=generator)
    periods = torch.tensor([1, 1, 2, 2, 4, 4])
    weight = cell.weight_hh.clone()
    for to in range(6):
        for source in range(6):
            if periods[source] < periods[to]:
                weight[to, source] = 0.0
    assert (weight == 0).sum() == 12

    outputs, _ = unroll(cell, inputs)

    h = torch.zeros(2, 6, dtype=torch.float64)
    for t, x in enumerate(inputs.unbind(1)):
        new = torch.tanh(x @ cell.weight_ih.T + cell.bias_ih + h @ weight.T + cell.bias_hh)
        h = torch.where(t % periods == 0, new, h)
        torch.testing.assert_close(outputs[:, t], h, rtol=0, atol=1e-14)


def test_with_one_clock_that_never_waits_it_is_elmans(generator: torch.Generator) -> None:
    cell, elman = ClockworkCell(3, 5, periods=(1,)).double(), ElmanCell(3, 5).double()
    elman.load_state_dict(cell.state_dict())
    inputs = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)

    torch.testing.assert_close(unroll(cell, inputs)[0], unroll(elman, inputs)[0], rtol=0, atol=1e-14)


def test_clocks_are_neither_learned_nor_set_from_a_summary() -> None:
    # given a network whose first state is learned, and a decoder that starts from a summary
    torch.manual_seed(0)
    network = Recurrent(ClockworkCell, 3, 8, 2, bidirectional=True, learned_initial_state=True)
    assert len(network.initial) == 4
    assert network.learnable_state() == [True, False] * 4
    decoder = AutoregressiveDecoder.of_tokens(
        7, 3, lambda **sizes: Recurrent(ClockworkCell, hidden_size=8, **sizes), source_size=5
    )

    state, _ = decoder.start(2, Encoded(torch.zeros(2, 1, 5), None, torch.randn(2, 5), None))

    h, waits = leaves(state.core)
    assert h.all()
    assert not waits.any()
    with torch.no_grad():
        network.initial[0].fill_(0.5)
    assert (network.initial_state(2, like=torch.zeros(1))[0][0].h == 0.5).all()


@pytest.mark.parametrize("periods", [[], [0, 1], [2, 2], [4, 2, 1]])
def test_periods_rise(periods: list[int]) -> None:
    with pytest.raises(ValueError, match="expected integers that ascend from 1 or more"):
        ClockworkCell(3, 8, periods=periods)


def test_a_module_has_a_unit() -> None:
    with pytest.raises(ValueError, match="4 periods for 3 units"):
        ClockworkCell(3, 3)
