"""LSTMs in which input and state multiply each other: multiplicative and mogrifier, against their equations."""

import pytest
import torch
from torch import Tensor

from unrolled import LSTMCell, LSTMState, MogrifierLSTMCell, MultiplicativeLSTMCell, unroll


def gated(blocks: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = blocks.chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def drawn(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    x, h, c = (torch.randn(4, size, dtype=torch.float64, generator=generator) for size in (3, 5, 5))
    return x, h, c


def test_a_multiplicative_step_is_its_equations(generator: torch.Generator) -> None:
    cell = MultiplicativeLSTMCell(3, 5).double()
    x, h, c = drawn(generator)

    output, state = cell(x, LSTMState(h, c))

    m = (x @ cell.weight_mx.T) * (h @ cell.weight_mh.T)
    expected = gated(x @ cell.weight_ih.T + cell.bias_ih + m @ cell.weight_hh.T + cell.bias_hh, c)
    torch.testing.assert_close((output, state.c), expected, rtol=0, atol=1e-14)
    assert state.h is output


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_a_mogrifier_step_is_its_equations(generator: torch.Generator, rounds: int, rank: int | None) -> None:
    cell = MogrifierLSTMCell(3, 5, rounds=rounds, rank=rank).double()
    x, h, c = drawn(generator)

    output, state = cell(x, LSTMState(h, c))

    def matrix(number: int) -> Tensor:
        if rank is None:
            return cell.get_parameter(f"weight_round_{number}")
        return cell.get_parameter(f"weight_left_{number}") @ cell.get_parameter(f"weight_right_{number}")

    for number in range(1, rounds + 1):
        if number in (1, 3, 5):
            x = 2 * torch.sigmoid(h @ matrix(number).T) * x
        else:
            h = 2 * torch.sigmoid(x @ matrix(number).T) * h
    expected = gated(x @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh, c)
    torch.testing.assert_close((output, state.c), expected, rtol=0, atol=1e-14)
    assert state.h is output


def test_a_mogrifier_without_rounds_is_the_lstm(generator: torch.Generator) -> None:
    cell, lstm = MogrifierLSTMCell(3, 5, rounds=0).double(), LSTMCell(3, 5).double()
    lstm.load_state_dict(cell.state_dict())
    inputs = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)

    torch.testing.assert_close(unroll(cell, inputs), unroll(lstm, inputs), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rounds": -1}, "rounds is -1, expected 0 or more"), ({"rank": 0}, "rank is 0, expected 1 or more")],
)
def test_options_that_make_no_mogrifier_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MogrifierLSTMCell(3, 5, **options)  # pyright: ignore


@pytest.mark.parametrize("make", [MultiplicativeLSTMCell, MogrifierLSTMCell])
def test_the_forget_bias_counts_once(make: type[MogrifierLSTMCell]) -> None:
    cell = make(3, 5, forget_bias=-2.5)

    assert ((cell.bias_ih + cell.bias_hh)[5:10] == -2.5).all()
