"""Optimizer options of parts of a network, by their names."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from unrolled.training.tasks.optimization import Optimization


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
        self.wide = nn.Linear(2, 1)
        self.wider = nn.Linear(2, 1)


def optimizer_of(groups: Any, network: Net) -> torch.optim.Optimizer:
    options = Optimization(optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1), groups=groups)
    return options.configure(options.split(network, [(network.parameters(), {})]), 10)


def test_each_part_has_its_own_options_and_no_parameter_is_lost() -> None:
    network = Net()

    optimizer = optimizer_of({"wide": {"lr": 0.5}, "encoder": {"lr": 0.1}, "encoder.1": {"weight_decay": 0.0}}, network)

    options = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    rates = {name: options[id(p)]["lr"] for name, p in network.named_parameters()}
    decays = {name: options[id(p)]["weight_decay"] for name, p in network.named_parameters()}
    expected = {"encoder.0": 0.1, "encoder.1": 1e-3, "wide": 0.5, "wider": 1e-3}
    assert rates == {f"{name}.{kind}": rate for name, rate in expected.items() for kind in ("weight", "bias")}
    assert {name for name, decay in decays.items() if decay} == {"encoder.0.weight", "wide.weight", "wider.weight"}
    assert optimizer.param_groups[0]["lr"] == 1e-3  # the logged rate is that of the rest


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"widest": {"lr": 1.0}}, "its parts: encoder, wide, wider"),
        ({"wide": {"rate": 1.0}}, "AdamW has no 'rate'; it takes lr"),
        ({"wide": {"lr": -1.0}}, r"groups\.wide\.lr=-1\.0"),
        ({"wide": {"lr": "fast"}}, r"groups\.wide\.lr=.fast.: expected a number"),
        ({"wide": {}}, "expected options of the optimizer"),
        ({"wide": 0.1}, "expected options of the optimizer"),
    ],
)
def test_wrong_groups_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimizer_of(groups, Net())
