"""Weights of torch.nn's layers, here and back."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from unrolled import (
    ElmanCell,
    GRUCell,
    LSTMCell,
    PeepholeLSTMCell,
    ProjectedLSTMCell,
    Recurrent,
    from_torch,
    to_torch,
)

LAYERS: dict[str, Any] = {
    "lstm": nn.LSTM,
    "projected": partial(nn.LSTM, proj_size=2),
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": partial(nn.RNN, nonlinearity="relu"),
}


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_weights_go_there_and_back(name: str, layers: int, bidirectional: bool, generator: torch.Generator) -> None:
    layer = LAYERS[name](3, 5, layers, bidirectional=bidirectional, batch_first=True).double()
    inputs = torch.randn(4, 6, 3, dtype=torch.float64, generator=generator)

    network = from_torch(layer)
    back = to_torch(network)

    torch.testing.assert_close(network(inputs)[0], layer(inputs)[0], rtol=0, atol=1e-14)
    assert type(back) is type(layer)
    assert back.state_dict().keys() == layer.state_dict().keys()
    for key, value in layer.state_dict().items():
        assert torch.equal(back.state_dict()[key], value)
    assert back(inputs)[0].equal(layer(inputs)[0])


def test_weights_are_copies() -> None:
    layer = nn.GRU(3, 5)
    network = from_torch(layer)

    nn.init.zeros_(layer.weight_ih_l0)

    assert network.cells[0].get_parameter("weight_ih").all()


def test_mode_precision_and_dropout_come_along() -> None:
    network = from_torch(nn.LSTM(3, 5, 2, dropout=0.25).double().eval())

    assert not network.training
    assert network.dropout.probability == 0.25
    assert next(network.parameters()).dtype == torch.float64
    back = to_torch(network)
    assert back.dropout == 0.25
    assert back.batch_first
    assert not back.training


def test_a_layer_without_biases_has_zeros(generator: torch.Generator) -> None:
    layer = nn.LSTM(3, 5, bias=False, batch_first=True).double()
    inputs = torch.randn(4, 6, 3, dtype=torch.float64, generator=generator)

    torch.testing.assert_close(from_torch(layer)(inputs)[0], layer(inputs)[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        (PeepholeLSTMCell, {}, "it has no PeepholeLSTMCell"),
        (partial(ElmanCell, activation="softsign"), {}, "supports tanh and relu, not activation=softsign"),
        (partial(LSTMCell, recurrent_dropout=0.5), {}, r"no noise inside a layer \(recurrent_dropout=0\.5\)"),
        (partial(LSTMCell, zoneout_c=0.5), {}, r"no noise inside a layer \(zoneout=\(0\.0, 0\.5\)\)"),
        (partial(GRUCell, candidate_dropout=0.5), {}, r"candidate_dropout=0\.5"),
        (partial(ProjectedLSTMCell, weight_drop=0.5), {}, r"weight_drop=0\.5"),
        (LSTMCell, {"residual": True}, "no residual connections"),
        (LSTMCell, {"learned_initial_state": True}, "no learned initial state"),
        (LSTMCell, {"dropout": 0.5, "variational_dropout": True}, "masks differ at each step"),
    ],
)
def test_what_torch_lacks_is_refused(cell: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"torch.nn has no layer for this network: .*{message}"):
        to_torch(Recurrent(cell, 3, 5, 2, **options))


def test_another_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"only nn\.LSTM, nn\.GRU and nn\.RNN can be converted, not Linear"):
        from_torch(nn.Linear(3, 5))  # pyright: ignore
