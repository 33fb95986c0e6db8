"""The LSTM with a projection against torch's own."""

import pytest
import torch
from torch import nn

from unrolled import LSTMState, ProjectedLSTMCell, unroll


def test_sequences_are_torchs(generator: torch.Generator) -> None:
    cell = ProjectedLSTMCell(3, 5, projection_size=2).double()
    oracle = nn.LSTM(3, 5, proj_size=2, batch_first=True).double()
    oracle.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    inputs = torch.randn(4, 7, 3, dtype=torch.float64, generator=generator)
    h, c = (torch.randn(4, size, dtype=torch.float64, generator=generator) for size in (2, 5))

    outputs, state = unroll(cell, inputs, LSTMState(h, c))

    expected, (expected_h, expected_c) = oracle(inputs, (h.unsqueeze(0), c.unsqueeze(0)))
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(state.h, expected_h[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(state.c, expected_c[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize(("hidden", "expected"), [(8, 4), (5, 3), (1, 1)])
def test_half_as_many_features_go_out_by_default(hidden: int, expected: int) -> None:
    cell = ProjectedLSTMCell(3, hidden)

    assert cell.output_size == expected
    assert cell.weight_hh.shape == (4 * hidden, expected)
    assert cell(torch.zeros(2, 3))[0].shape == (2, expected)


@pytest.mark.parametrize("size", [0, -1, 5, 6])
def test_a_projection_is_smaller_than_what_it_projects(size: int) -> None:
    with pytest.raises(ValueError, match=f"projection_size is {size}, expected 1 to 4"):
        ProjectedLSTMCell(3, 5, projection_size=size)


def test_the_forget_bias_counts_once() -> None:
    cell = ProjectedLSTMCell(3, 5, forget_bias=-2.5)

    assert ((cell.bias_ih + cell.bias_hh)[5:10] == -2.5).all()
