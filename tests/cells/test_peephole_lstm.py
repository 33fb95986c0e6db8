"""The LSTM with peepholes, and its variants, against their equations and against the LSTM that has none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import FullGateLSTMCell, LSTMCell, LSTMState, PeepholeLSTMCell, unroll
from unrolled.cells.full_gate_lstm import FullGateState

sigmoid, tanh = torch.sigmoid, torch.tanh


def softsign(x: Tensor) -> Tensor:
    return x / (1 + x.abs())


def identity(x: Tensor) -> Tensor:
    return x


def open_gate(x: Tensor) -> Tensor:
    return torch.ones_like(x)


# Greff et al. 2017, section 3: what each variant changes in σ_i, σ_f, σ_o, the input and the output activation.
VARIANTS: dict[str, tuple[dict[str, Any], tuple[Callable[[Tensor], Tensor], ...]]] = {
    "vanilla": ({}, (sigmoid, sigmoid, sigmoid, tanh, tanh)),
    "NIG": ({"missing_gate": "input"}, (open_gate, sigmoid, sigmoid, tanh, tanh)),
    "NFG": ({"missing_gate": "forget"}, (sigmoid, open_gate, sigmoid, tanh, tanh)),
    "NOG": ({"missing_gate": "output"}, (sigmoid, sigmoid, open_gate, tanh, tanh)),
    "NIAF": ({"input_activation": "identity"}, (sigmoid, sigmoid, sigmoid, identity, tanh)),
    "NOAF": ({"output_activation": "identity"}, (sigmoid, sigmoid, sigmoid, tanh, identity)),
    "NP": ({"peepholes": False}, (sigmoid, sigmoid, sigmoid, tanh, tanh)),
    "softsign": (
        {"gate_activation": "hard_sigmoid", "input_activation": "softsign", "output_activation": "softsign"},
        (*[lambda x: (x / 6 + 0.5).clamp(0, 1)] * 3, softsign, softsign),
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_is_the_equations_of_its_variant(generator: torch.Generator, variant: str) -> None:
    options, (sigma_i, sigma_f, sigma_o, gamma, eta) = VARIANTS[variant]
    cell = PeepholeLSTMCell(3, 5, **options).double()
    x, h, c = (torch.randn(4, size, dtype=torch.float64, generator=generator) for size in (3, 5, 5))

    output, state = cell(x, LSTMState(h, c))

    # Block by block, with zeros for what the variant lacks.
    def block(gate: str) -> Tensor:
        if gate not in cell.blocks:
            return torch.zeros(4, 5, dtype=torch.float64)
        rows = slice(5 * cell.blocks.index(gate), 5 * cell.blocks.index(gate) + 5)
        return x @ cell.weight_ih[rows].T + cell.bias_ih[rows] + h @ cell.weight_hh[rows].T + cell.bias_hh[rows]

    def peephole(gate: str) -> Tensor:
        found = getattr(cell, f"peephole_{gate}")
        return torch.zeros(5, dtype=torch.float64) if found is None else found

    i = sigma_i(block("i") + peephole("i") * c)
    f = sigma_f(block("f") + peephole("f") * c)
    expected_c = f * c + i * gamma(block("g"))
    o = sigma_o(block("o") + peephole("o") * expected_c)
    torch.testing.assert_close(state.c, expected_c, rtol=0, atol=1e-14)
    torch.testing.assert_close(output, o * eta(expected_c), rtol=0, atol=1e-14)
    assert state.h is output


@pytest.mark.parametrize(
    ("options", "blocks", "peepholes"),
    [
        ({}, "ifgo", "ifo"),
        ({"missing_gate": "input"}, "fgo", "fo"),
        ({"missing_gate": "forget"}, "igo", "io"),
        ({"missing_gate": "output"}, "ifg", "if"),
        ({"coupled": True}, "igo", "io"),
        ({"coupled": True, "missing_gate": "output"}, "ig", "i"),
        ({"peepholes": False}, "ifgo", ""),
    ],
)
def test_a_variant_has_no_parameters_for_what_it_lacks(options: dict[str, Any], blocks: str, peepholes: str) -> None:
    cell = PeepholeLSTMCell(3, 5, **options)

    assert cell.weight_ih.shape == (5 * len(blocks), 3)
    assert cell.weight_hh.shape == (5 * len(blocks), 5)
    own = [name for name, _ in cell.named_parameters() if name.startswith("peephole")]
    assert own == [f"peephole_{gate}" for gate in peepholes]


def test_coupled_gates_forget_what_they_let_in(generator: torch.Generator) -> None:
    cell = PeepholeLSTMCell(3, 5, coupled=True).double()
    x, h, c = (torch.randn(4, size, dtype=torch.float64, generator=generator) for size in (3, 5, 5))

    _, state = cell(x, LSTMState(h, c))

    i, g, _ = (x @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh).chunk(3, dim=1)
    i = sigmoid(i + cell.get_parameter("peephole_i") * c)
    torch.testing.assert_close(state.c, (1 - i) * c + i * tanh(g), rtol=0, atol=1e-14)


def test_without_peepholes_it_is_the_lstm(generator: torch.Generator) -> None:
    cell, lstm = PeepholeLSTMCell(3, 5, peepholes=False).double(), LSTMCell(3, 5).double()
    lstm.load_state_dict(cell.state_dict())
    inputs = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)

    torch.testing.assert_close(unroll(cell, inputs), unroll(lstm, inputs), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("options", "gate", "bias"), [({}, "f", 2.5), ({"coupled": True}, "i", -2.5)])
def test_the_forget_bias_counts_once(options: dict[str, Any], gate: str, bias: float) -> None:
    cell = PeepholeLSTMCell(3, 5, forget_bias=2.5, **options)

    rows = slice(5 * cell.blocks.index(gate), 5 * cell.blocks.index(gate) + 5)
    total = cell.bias_ih + cell.bias_hh
    assert (total[rows] == bias).all()
    assert (total == bias).sum() == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing_gate": "reset"}, "missing_gate is 'reset', expected one of input, forget, output, or None"),
        ({"missing_gate": "input", "coupled": True}, "coupled=True couples two gates, of which missing_gate='input'"),
        ({"gate_activation": "tahn"}, "gate_activation is 'tahn', expected one of tanh, sigmoid"),
        ({"input_activation": "tahn"}, "input_activation is 'tahn'"),
        ({"output_activation": "tahn"}, "output_activation is 'tahn'"),
    ],
)
def test_options_that_make_no_cell_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PeepholeLSTMCell(3, 5, **options)


def test_with_full_gate_recurrence_the_gates_see_the_last_gates(generator: torch.Generator) -> None:
    cell = FullGateLSTMCell(3, 5).double()
    x = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    state = FullGateState(*torch.randn(5, 4, 5, dtype=torch.float64, generator=generator))

    output, new = cell(x, state)

    linear = (x @ cell.weight_ih.T + cell.bias_ih + state.h @ cell.weight_hh.T + cell.bias_hh).chunk(4, dim=1)
    gates = dict(zip("ifgo", linear, strict=True))
    blocks = cell.weight_gates.unflatten(1, (3, 5)).unflatten(0, (3, 5))  # to gate, unit, from gate, unit
    for to, gate in enumerate("ifo"):
        for source, last in enumerate((state.i, state.f, state.o)):
            gates[gate] = gates[gate] + last @ blocks[to, :, source].T
    i = sigmoid(gates["i"] + cell.peephole_i * state.c)
    f = sigmoid(gates["f"] + cell.peephole_f * state.c)
    c = f * state.c + i * tanh(gates["g"])
    o = sigmoid(gates["o"] + cell.peephole_o * c)
    for found, expected in zip(new, (o * tanh(c), c, i, f, o), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    assert output is new.h


def test_without_gate_recurrence_it_is_the_cell_with_peepholes(generator: torch.Generator) -> None:
    cell, plain = FullGateLSTMCell(3, 5).double(), PeepholeLSTMCell(3, 5).double()
    nn.init.zeros_(cell.weight_gates)
    plain.load_state_dict({name: value for name, value in cell.state_dict().items() if name != "weight_gates"})
    inputs = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)

    torch.testing.assert_close(unroll(cell, inputs)[0], unroll(plain, inputs)[0], rtol=0, atol=1e-14)
