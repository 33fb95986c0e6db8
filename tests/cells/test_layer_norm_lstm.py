"""The layer-normalized LSTM against its equations, and what normalization promises."""

import torch
from torch import Tensor

from unrolled import LayerNormLSTMCell, LSTMState, unroll


def normalized(values: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    centred = values - values.mean(-1, keepdim=True)
    return gain * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() + bias


def randomized(generator: torch.Generator) -> LayerNormLSTMCell:
    cell = LayerNormLSTMCell(3, 5).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return cell


def test_one_step_is_its_equations(generator: torch.Generator) -> None:
    cell = randomized(generator)
    x, h, c = (torch.randn(4, size, dtype=torch.float64, generator=generator) for size in (3, 5, 5))

    output, state = cell(x, LSTMState(h, c))

    of_input = normalized(x @ cell.weight_ih.T, cell.gain_ih, cell.bias_ih)
    of_state = normalized(h @ cell.weight_hh.T, cell.gain_hh, cell.bias_hh)
    i, f, g, o = (of_input + of_state).chunk(4, dim=1)
    expected = f.sigmoid() * c + i.sigmoid() * g.tanh()
    torch.testing.assert_close(state.c, expected, rtol=0, atol=1e-13)
    written = o.sigmoid() * normalized(expected, cell.gain_c, cell.bias_c).tanh()
    torch.testing.assert_close(output, written, rtol=0, atol=1e-13)
    assert state.h is output


def test_larger_weights_change_nothing(generator: torch.Generator) -> None:
    cell = randomized(generator)
    cell.epsilon = 0.0
    inputs = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)
    state = LSTMState(*torch.randn(2, 2, 5, dtype=torch.float64, generator=generator))
    expected, _ = unroll(cell, inputs, state)

    with torch.no_grad():
        cell.weight_ih.mul_(1e4)
        cell.weight_hh.mul_(1e4)

    torch.testing.assert_close(unroll(cell, inputs, state)[0], expected, rtol=0, atol=1e-10)


def test_gains_begin_at_one_and_biases_at_zero_but_for_the_forget_gates() -> None:
    cell = LayerNormLSTMCell(3, 5, forget_bias=2.0)

    assert all((gain == 1).all() for gain in (cell.gain_ih, cell.gain_hh, cell.gain_c))
    assert not cell.bias_hh.any()
    assert not cell.bias_c.any()
    assert cell.bias_ih.tolist() == [0.0] * 5 + [2.0] * 5 + [0.0] * 10
