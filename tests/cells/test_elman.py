"""Elman's cell against torch's own, and against its equation."""

import pytest
import torch
from torch import nn

from unrolled import ElmanCell, HiddenState, unroll
from unrolled.cells.activations import ACTIVATIONS


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_one_step_is_torchs(generator: torch.Generator, activation: str) -> None:
    cell = ElmanCell(3, 5, activation=activation).double()
    oracle = nn.RNNCell(3, 5, nonlinearity=activation).double()
    oracle.load_state_dict(cell.state_dict())
    inputs = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    h = torch.randn(4, 5, dtype=torch.float64, generator=generator)

    output, state = cell(inputs, HiddenState(h))

    torch.testing.assert_close(output, oracle(inputs, h), rtol=0, atol=1e-14)
    assert state.h is output


@pytest.mark.parametrize(
    ("activation", "equation"),
    [("sigmoid", lambda x: 1 / (1 + (-x).exp())), ("softsign", lambda x: x / (1 + x.abs()))],
)
def test_activations_that_torch_lacks_are_their_equations(
    generator: torch.Generator, activation: str, equation
) -> None:
    cell = ElmanCell(3, 5, activation=activation).double()
    inputs = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    h = torch.randn(4, 5, dtype=torch.float64, generator=generator)

    output, _ = cell(inputs, HiddenState(h))

    before = inputs @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh
    torch.testing.assert_close(output, equation(before), rtol=0, atol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_exact(generator: torch.Generator, activation: str) -> None:
    cell = ElmanCell(3, 5, activation=activation).double()
    inputs = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator, requires_grad=True)

    assert torch.autograd.gradcheck(lambda x: unroll(cell, x)[0], (inputs,))


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="activation is 'sine', expected one of tanh, sigmoid, relu, softsign, "):
        ElmanCell(3, 4, activation="sine")
