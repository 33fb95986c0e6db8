"""The GRU cell against torch's own."""

import torch
from torch import nn

from unrolled import GRUCell, HiddenState, unroll


def test_one_step_is_torchs(generator: torch.Generator) -> None:
    cell = GRUCell(3, 5).double()
    oracle = nn.GRUCell(3, 5).double()
    oracle.load_state_dict(cell.state_dict())
    inputs = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    h = torch.randn(4, 5, dtype=torch.float64, generator=generator)

    output, state = cell(inputs, HiddenState(h))

    torch.testing.assert_close(output, oracle(inputs, h), rtol=0, atol=1e-14)
    assert state.h is output


def test_gradients_are_exact(generator: torch.Generator) -> None:
    cell = GRUCell(3, 5).double()
    inputs = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator, requires_grad=True)

    assert torch.autograd.gradcheck(lambda x: unroll(cell, x)[0], (inputs,))
