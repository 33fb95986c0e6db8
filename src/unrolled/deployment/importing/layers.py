"""Layers as other programs' files hold them, in the terms of this package, and the `Recurrent` that they become."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.descriptions import CheckpointError, build
from unrolled.layers.recurrent import Recurrent


class ImportedLayer(NamedTuple):
    """A recurrent layer of a file.

    Attributes:
        name: its name in the file.
        cell: description of its cell.
        input_size: number of input features.
        hidden_size: number of units.
        directions: the cell's parameters by name, forward, or forward and backward.
        initial: for each direction the state before the first step, (hidden,) each; empty for zeros.
    """

    name: str
    cell: dict[str, Any]
    input_size: int
    hidden_size: int
    directions: Sequence[Mapping[str, Tensor]]
    initial: Sequence[Sequence[Tensor]] = ()


def cell(name: str, **options: Any) -> dict[str, Any]:
    """Return the description of a cell."""
    return {"_target_": f"unrolled.{name}", "_partial_": True, **options}


def lstm(gates: str, candidate: str, output: str, *, peepholes: bool = False, coupled: bool = False) -> dict[str, Any]:
    """Return the description of an LSTM's cell with these activations."""
    if (gates, candidate, output, peepholes, coupled) == ("sigmoid", "tanh", "tanh", False, False):
        return cell("LSTMCell")
    activations = {"gate_activation": gates, "input_activation": candidate, "output_activation": output}
    return cell("PeepholeLSTMCell", peepholes=peepholes, coupled=coupled, **activations)


def blocks(weight: Tensor, order: Sequence[int], count: int | None = None) -> Tensor:
    """Return blocks of a weight or bias along its first axis in another order.

    Args:
        weight: the weight.
        order: the places of the wanted blocks.
        count: number of blocks of the weight; by default as many as are wanted.
    """
    return torch.cat([weight.chunk(count or len(order))[place] for place in order])


def stack(layers: Sequence[ImportedLayer]) -> Recurrent:
    """Make a `Recurrent` of layers, which has a description (`unrolled.describe`).

    Raises:
        CheckpointError: layers that don't fit together, or with other cells, sizes or directions.
    """
    first = layers[0]
    for before, after in pairwise(layers):
        differing = _difference(first, after)
        if differing is not None:
            raise CheckpointError(
                f"{first.name} and {after.name} differ in their {differing}; import them one by one: "
                f"layers=[{first.name!r}]"
            )
        if after.input_size != before.hidden_size * len(before.directions):
            raise CheckpointError(
                f"{after.name} reads {after.input_size} features, which {before.name} does not return"
            )
    learned = any(any(each.count_nonzero() for each in part) for layer in layers for part in layer.initial)
    network: Recurrent = build(
        {
            "_target_": "unrolled.Recurrent",
            "cell": first.cell,
            "input_size": first.input_size,
            "hidden_size": first.hidden_size,
            "num_layers": len(layers),
            "bidirectional": len(first.directions) == 2,
            "learned_initial_state": learned,
        }
    )
    network.to(next(iter(first.directions[0].values())).dtype)
    with torch.no_grad():
        for index, layer in enumerate(layers):
            made = [each[index] for each in (network.cells, network.reverse_cells)[: len(layer.directions)]]
            for module, given in zip(made, layer.directions, strict=True):
                for name, parameter in module.named_parameters():
                    parameter.copy_(given[name]) if name in given else parameter.zero_()
        if learned:
            zeros = torch.zeros(first.hidden_size)
            count = len(network.initial) // (len(layers) * len(first.directions))  # tensors of a cell's state
            states = [part for layer in layers for part in layer.initial or [[zeros] * count] * len(layer.directions)]
            for parameter, value in zip(network.initial, [each for part in states for each in part], strict=True):
                parameter.copy_(value)
    return network.eval()


def _difference(one: ImportedLayer, other: ImportedLayer) -> str | None:
    """Return what two layers of a `Recurrent` must share and don't."""
    if one.hidden_size != other.hidden_size:
        return "numbers of units"
    if len(one.directions) != len(other.directions):
        return "numbers of directions"
    return "cells" if one.cell != other.cell else None
