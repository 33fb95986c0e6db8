"""How weights are drawn: what each scheme promises, gate by gate."""

import math

import pytest
import torch
from torch import nn

from unrolled import Cell, ElmanCell, GRUCell, LSTMCell, Recurrent
from unrolled.layers.initialization import SCHEMES, initialize


@pytest.fixture
def network() -> nn.ModuleDict:
    return nn.ModuleDict(
        {"embedding": nn.Embedding(7, 48), "core": Recurrent(LSTMCell, 48, 64, 2), "head": nn.Linear(64, 7)}
    )


@pytest.mark.parametrize("make", [ElmanCell, GRUCell, LSTMCell])
def test_recurrent_matrices_are_orthogonal_gate_by_gate(make: type[Cell], generator: torch.Generator) -> None:
    cell = make(5, 8).double()

    initialize(cell, "orthogonal", generator)

    gates = cell.get_parameter("weight_hh").split(8)
    assert len(gates) == {ElmanCell: 1, GRUCell: 3, LSTMCell: 4}[make]
    for gate in gates:
        torch.testing.assert_close(gate @ gate.T, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("scheme", "deviation"),
    [
        ("uniform", 0.08 / math.sqrt(3)),
        ("normal", math.sqrt(1 / 48)),
        ("xavier_uniform", math.sqrt(2 / (48 + 64))),
        ("xavier_normal", math.sqrt(2 / (48 + 64))),
        ("kaiming_uniform", math.sqrt(2 / 48)),
        ("orthogonal", math.sqrt(2 / (48 + 64))),
    ],
)
def test_each_gate_has_the_spread_that_its_scheme_names(
    network: nn.ModuleDict, generator: torch.Generator, scheme: str, deviation: float
) -> None:
    initialize(network, scheme, generator)

    for gate in network.get_parameter("core.cells.0.weight_ih").split(64):
        # 3072 draws: the deviation of a sample deviates by 1/√(2 × 3072) = 1.3 %.
        assert gate.std().item() == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_biases_and_embeddings_stay(network: nn.ModuleDict, scheme: str) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}

    initialize(network, scheme)

    for name, value in network.state_dict().items():
        stays = scheme == "default" or "bias" in name or "embedding" in name
        assert torch.equal(value, before[name]) == stays, name
    assert (network.get_parameter("core.cells.1.bias_ih")[64:128] == 1).all()


def test_a_generator_makes_it_repeatable() -> None:
    cells = [LSTMCell(3, 4), LSTMCell(3, 4)]

    for cell in cells:
        initialize(cell, "orthogonal", torch.Generator().manual_seed(5))

    assert torch.equal(cells[0].weight_ih, cells[1].weight_ih)
    assert torch.equal(cells[0].weight_hh, cells[1].weight_hh)


def test_an_unknown_scheme_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown scheme 'xavier', did you mean 'xavier_normal'"):
        initialize(LSTMCell(3, 4), "xavier")
