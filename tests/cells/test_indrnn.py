"""The independently recurrent cell against its equation, and its units' independence."""

import pytest
import torch

from unrolled import HiddenState, IndRNNCell, unroll


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_one_step_is_its_equation(generator: torch.Generator, activation: str) -> None:
    cell = IndRNNCell(3, 5, activation=activation).double()
    x, h = (torch.randn(4, size, dtype=torch.float64, generator=generator) for size in (3, 5))

    output, state = cell(x, HiddenState(h))

    expected = getattr(torch, activation)(x @ cell.weight_ih.T + cell.bias_ih + cell.weight_u * h)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-14)
    assert state.h is output


def test_a_unit_never_sees_another(generator: torch.Generator) -> None:
    cell = IndRNNCell(3, 5, activation="tanh").double()
    inputs = torch.randn(1, 6, 3, dtype=torch.float64, generator=generator)

    jacobian = torch.autograd.functional.jacobian(
        lambda h: unroll(cell, inputs, HiddenState(h))[0][0, -1],
        torch.randn(1, 5, dtype=torch.float64, generator=generator),
    ).squeeze(1)  # pyright: ignore

    assert (jacobian.diag() != 0).all()
    assert not (jacobian - jacobian.diag().diag()).any()


def test_recurrent_weights_begin_between_nought_and_one() -> None:
    torch.manual_seed(0)
    weights = IndRNNCell(3, 1000).weight_u

    assert weights.min() >= 0
    assert weights.max() <= 1
    assert weights.mean().item() == pytest.approx(0.5, abs=0.05)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="activation is 'sine', expected one of tanh, sigmoid"):
        IndRNNCell(3, 4, activation="sine")
