"""Jordan's cell against its equations."""

import pytest
import torch

from unrolled import ElmanCell, HiddenState, JordanCell, unroll


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_one_step_is_its_equations(generator: torch.Generator, memory: float) -> None:
    cell = JordanCell(3, 5, output_units=2, memory=memory, activation="sigmoid", output_activation="softsign").double()
    x, s = (torch.randn(4, size, dtype=torch.float64, generator=generator) for size in (3, 2))

    output, state = cell(x, HiddenState(s))

    h = torch.sigmoid(x @ cell.weight_ih.T + cell.bias_ih + s @ cell.weight_hh.T + cell.bias_hh)
    y = torch.nn.functional.softsign(h @ cell.weight_ho.T + cell.bias_ho)
    torch.testing.assert_close(output, y, rtol=0, atol=1e-14)
    torch.testing.assert_close(state.h, memory * s + y, rtol=0, atol=1e-14)


def test_with_outputs_that_are_the_hidden_units_it_is_elmans(generator: torch.Generator) -> None:
    cell, elman = JordanCell(3, 5, output_activation="identity").double(), ElmanCell(3, 5).double()
    torch.nn.init.eye_(cell.weight_ho)
    torch.nn.init.zeros_(cell.bias_ho)
    elman.load_state_dict({name: value for name, value in cell.state_dict().items() if not name.endswith("ho")})
    inputs = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)

    torch.testing.assert_close(unroll(cell, inputs), unroll(elman, inputs), rtol=0, atol=1e-14)


def test_a_memory_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"memory is 1\.0, expected a fraction in \[0, 1\)"):
        JordanCell(3, 4, memory=1.0)
