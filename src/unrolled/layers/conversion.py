"""Conversion of torch.nn's recurrent layers to `Recurrent` and back, with all layers and both directions."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells.elman import ElmanCell
from unrolled.cells.gru import GRUCell
from unrolled.cells.hooks import has_hooks
from unrolled.cells.lstm import LSTMCell
from unrolled.cells.projected_lstm import ProjectedLSTMCell
from unrolled.layers.recurrent import Recurrent


def from_torch(layer: nn.RNNBase) -> Recurrent:
    """Convert an nn.LSTM, nn.GRU or nn.RNN to a `Recurrent` with copies of its weights.

    Device, dtype, mode and dropout between layers are preserved. The inputs of the result are (batch, time, features)
    for any `batch_first`. A layer without biases gets zero biases, which can be trained.

    Raises:
        ValueError: another type of layer.
    """
    network = Recurrent(
        _cell_of(layer),
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        dropout=float(layer.dropout),
        bidirectional=layer.bidirectional,
    )
    network.to(next(layer.parameters()))
    with torch.no_grad():
        for name, parameter in _torch_names(network):
            given = getattr(layer, name, None)
            if isinstance(given, Tensor) and name in vars(layer):
                raise ValueError(
                    f"a hook computes {name} of this layer; remove it first (remove_weight_norm, prune.remove)"
                )
            parameter.zero_() if given is None else parameter.copy_(given)
    return network.train(layer.training)


def to_torch(network: Recurrent) -> nn.RNNBase:
    """Convert a `Recurrent` to an nn.LSTM, nn.GRU or nn.RNN (batch first) with copies of its weights.

    Raises:
        ValueError: cells or options without an equivalent in torch.nn.
    """
    cells = [cell for stack in (network.cells, network.reverse_cells) for cell in stack]
    obstacle = next(filter(None, map(_obstacle, cells)), None) or _obstacle_of_stack(network)
    if obstacle is not None:
        raise ValueError(f"torch.nn has no layer for this network: {obstacle}")
    options: dict[str, Any] = {"batch_first": True, "bidirectional": network.bidirectional}
    options["dropout"] = network.dropout.probability if network.num_layers > 1 else 0.0
    layer = _layer_of(cells[0])(network.input_size, network.hidden_size, network.num_layers, **options)
    layer.to(next(network.parameters()))
    with torch.no_grad():
        for name, parameter in _torch_names(network):
            layer.get_parameter(name).copy_(parameter)
    return layer.train(network.training)


def _torch_names(network: Recurrent) -> Iterator[tuple[str, Tensor]]:
    """Yield each parameter of the cells with its name in torch.nn."""
    for cells, suffix in ((network.cells, ""), (network.reverse_cells, "_reverse")):
        for index, cell in enumerate(cells):
            for name, parameter in cell.named_parameters():
                yield f"{name}_l{index}{suffix}", parameter


def _cell_of(layer: nn.RNNBase) -> Any:
    if isinstance(layer, nn.LSTM):
        return partial(ProjectedLSTMCell, projection_size=layer.proj_size) if layer.proj_size else LSTMCell
    if isinstance(layer, nn.GRU):
        return GRUCell
    if isinstance(layer, nn.RNN):
        return partial(ElmanCell, activation=layer.nonlinearity)
    raise ValueError(f"only nn.LSTM, nn.GRU and nn.RNN can be converted, not {type(layer).__name__}")


def _layer_of(cell: nn.Module) -> Any:
    if isinstance(cell, ProjectedLSTMCell):
        return partial(nn.LSTM, proj_size=cell.projection_size)
    if isinstance(cell, ElmanCell):
        return partial(nn.RNN, nonlinearity=cell.activation)
    return nn.LSTM if isinstance(cell, LSTMCell) else nn.GRU


def _obstacle(cell: Any) -> str | None:
    """Return the feature of a cell that torch's layers lack; None if there is none."""
    if has_hooks(cell):
        return f"it has no hooks on cells (those of {type(cell).__name__}); remove them first"
    if type(cell) not in (LSTMCell, ProjectedLSTMCell, GRUCell, ElmanCell):
        return f"it has no {type(cell).__name__}"
    if isinstance(cell, ElmanCell) and cell.activation not in ("tanh", "relu"):
        return f"its nn.RNN supports tanh and relu, not activation={cell.activation}"
    if isinstance(cell, ProjectedLSTMCell) and cell.projection_size >= cell.hidden_size:
        return f"its projections must be smaller than hidden_size, and projection_size={cell.projection_size} is not"
    noise = {name: getattr(cell, name) for name in ("recurrent_dropout", "weight_drop")}
    noise |= {"candidate_dropout": getattr(cell, "candidate_dropout", 0.0)}
    noise |= {"zoneout": cell.zoneout} if getattr(cell, "has_zoneout", False) else {}
    found = next((f"{name}={value}" for name, value in noise.items() if value), None)
    return None if found is None else f"it has no noise inside a layer ({found})"


def _obstacle_of_stack(network: Recurrent) -> str | None:
    if network.residual:
        return "it has no residual connections (residual=True)"
    if len(network.initial) > 0:
        return "it has no learned initial state (learned_initial_state=True)"
    if network.dropout.variational and network.dropout.probability > 0.0:
        return "its dropout masks differ at each step (variational_dropout=True)"
    return None
