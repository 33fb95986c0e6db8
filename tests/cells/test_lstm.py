"""The LSTM cell against torch's own, and its forget bias."""

import pytest
import torch
from torch import nn

from unrolled import LSTMCell, LSTMState, unroll


def test_one_step_is_torchs(generator: torch.Generator) -> None:
    cell = LSTMCell(3, 5).double()
    oracle = nn.LSTMCell(3, 5).double()
    oracle.load_state_dict(cell.state_dict())
    inputs = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    h, c = torch.randn(2, 4, 5, dtype=torch.float64, generator=generator)

    output, state = cell(inputs, LSTMState(h, c))

    expected_h, expected_c = oracle(inputs, (h, c))
    torch.testing.assert_close(output, expected_h, rtol=0, atol=1e-14)
    torch.testing.assert_close(state.c, expected_c, rtol=0, atol=1e-14)
    assert state.h is output


@pytest.mark.parametrize("forget_bias", [0.0, 1.0, -2.5])
def test_the_forget_bias_counts_once(forget_bias: float) -> None:
    cell = LSTMCell(3, 5, forget_bias=forget_bias)

    assert ((cell.bias_ih + cell.bias_hh)[5:10] == forget_bias).all()
    others = torch.cat([cell.bias_ih[:5], cell.bias_ih[10:], cell.bias_hh[:5], cell.bias_hh[10:]])
    assert others.abs().max() <= 5**-0.5
    assert others.abs().min() > 0


def test_h_and_c_begin_as_tensors_of_their_own() -> None:
    state = LSTMCell(3, 5).initial_state(2, like=torch.zeros(1))

    state.h.add_(1)

    assert not state.c.any()


def test_gradients_are_exact(generator: torch.Generator) -> None:
    cell = LSTMCell(3, 5).double()
    inputs = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator, requires_grad=True)

    assert torch.autograd.gradcheck(lambda x: (unroll(cell, x)[0], unroll(cell, x)[1].c), (inputs,))
