"""Recurrent layers of Keras, from its files (`.keras`, `.h5`) alone: Keras is not imported, and no code is executed.

The configuration is JSON, the weights are HDF5. A kernel of Keras is the transpose of ours. An LSTM's gates are in our
order (i, f, c, o), those of a GRU are in another one (z, r, h).
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.deployment.importing.hdf5 import member
from unrolled.deployment.importing.keras_files import Layer, Model, opened, text
from unrolled.deployment.importing.layers import ImportedLayer, blocks, cell, lstm, stack
from unrolled.descriptions import CheckpointError
from unrolled.layers.recurrent import Recurrent

_ACTIVATIONS = {
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "softsign": "softsign",
    "softplus": "softplus",
    "hard_sigmoid": "hard_sigmoid",
    "linear": "identity",
}
_RECURRENT = ("LSTM", "GRU", "SimpleRNN")
_BETWEEN = ("Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "ActivityRegularization", "Masking")
_REFUSED = (
    "RNN",
    "ConvLSTM1D",
    "ConvLSTM2D",
    "ConvLSTM3D",
    "CuDNNLSTM",
    "CuDNNGRU",
    "TimeDistributed",
    "StackedRNNCells",
)
_BLOCKS = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
_ORDER = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2), "SimpleRNN": (0,)}  # ours, in blocks of theirs


def from_keras(path: str | Path, layers: Sequence[str] | None = None, *, reverse: bool = False) -> Recurrent:
    """Convert recurrent layers of a Keras model to a `Recurrent` with copies of their weights, in evaluation mode.

    `LSTM`, `GRU`, `SimpleRNN` and `Bidirectional` are converted, with activations that the cells of this package have.
    Options of training, such as dropout, are not. Inputs are (batch, time, features). The outputs are those of all
    steps, as with return_sequences=True; a masked sequence is one with `lengths`.

    Args:
        path: a model saved as `.keras` or HDF5 (`.h5`, `.hdf5`).
        layers: names of layers, of which each reads the previous one; by default all recurrent layers of the model.
        reverse: whether a layer with go_backwards=True is converted. Run its cell by `unroll(…, reverse=True)`.

    Raises:
        CheckpointError: a file that is damaged or of another kind, or a layer that can't be expressed.
    """
    with opened(Path(path)) as model:
        return stack([_imported(model, layer, reverse) for layer in _chosen(model, layers)])


def keras_layers(path: str | Path) -> dict[str, nn.Module]:
    """Convert each layer of a Keras model that can be expressed alone, by name, with copies of its weights.

    Recurrent layers become a `Recurrent`, an Embedding an nn.Embedding, and a Dense layer an nn.Linear without its
    activation. Other layers are left out.

    Raises:
        CheckpointError: see `from_keras`.
    """
    with opened(Path(path)) as model:
        found = {layer.name: _module(model, layer) for layer in model.layers.values()}
    return {name: module for name, module in found.items() if module is not None}


def _chosen(model: Model, names: Sequence[str] | None) -> list[Layer]:
    """Return the layers to convert, each of which reads the previous one."""
    recurrent = [layer.name for layer in model.layers.values() if layer.kind in (*_RECURRENT, "Bidirectional")]
    for layer in model.layers.values():
        if names is None and layer.kind in _REFUSED:
            raise CheckpointError(
                f"{model.path}: {layer.name} is {layer.kind}, which can't be imported; name layers=[…]"
            )
    wanted = recurrent if names is None else list(names)
    unknown = next((name for name in wanted if name not in recurrent), None)
    if unknown is not None or not wanted:
        raise CheckpointError(
            f"{model.path}: {'there is no' if unknown is None else f'{unknown!r} is no'} recurrent layer that can be "
            f"imported; there are {', '.join(recurrent) or 'none'} among {', '.join(model.layers)}"
        )
    for name, after in pairwise(wanted):
        reads = model.layers[after].before
        while len(reads) == 1 and model.layers.get(reads[0]) and model.layers[reads[0]].kind in _BETWEEN:
            reads = model.layers[reads[0]].before
        inner = model.layers[name].options
        inner = inner["layer"]["config"] if model.layers[name].kind == "Bidirectional" else inner
        if reads != [name] or not inner.get("return_sequences"):
            raise CheckpointError(
                f"{model.path}: {after} does not read the outputs of {name} at all steps alone; import them one by "
                f"one: layers=[{name!r}]"
            )
    return [model.layers[name] for name in wanted]


def _imported(model: Model, layer: Layer, reverse: bool) -> ImportedLayer:
    """Convert a recurrent layer."""
    kind, options, parts = layer.kind, layer.options, [("cell/", 0)]
    if kind == "Bidirectional":
        if options.get("merge_mode") != "concat":
            raise CheckpointError(f"{_at(model, layer)} merge_mode={options.get('merge_mode')!r}, expected 'concat'")
        kind, options = str(options["layer"]["class_name"]), dict(options["layer"]["config"])
        backward = layer.options.get("backward_layer")
        if isinstance(backward, dict) and not _same(backward, kind, options):
            raise CheckpointError(f"{_at(model, layer)} a backward layer that differs from the forward one")
        parts = [("forward_layer/cell/", 0), ("backward_layer/cell/", 3 if options.get("use_bias", True) else 2)]
        if kind not in _RECURRENT:
            raise CheckpointError(f"{_at(model, layer)} {kind}, expected one of {', '.join(_RECURRENT)}")
        reverse = False
    if options.get("go_backwards") and not reverse:
        raise CheckpointError(
            f"{_at(model, layer)} go_backwards=True; pass reverse=True, and run its cell by unroll(…, reverse=True), "
            "whose outputs are in the order of the inputs"
        )
    units, size = int(options["units"]), _input_size(model, layer, parts[0][0])
    found = _cell(model, layer, kind, options)
    directions = [_parameters(model, layer, kind, options, size, units, part, first) for part, first in parts]
    return ImportedLayer(layer.name, found, size, units, directions)


def _same(backward: dict[str, Any], kind: str, options: dict[str, Any]) -> bool:
    own: dict[str, Any] = backward.get("config") or {}
    names = ("units", "activation", "recurrent_activation", "use_bias", "reset_after")
    return backward.get("class_name") == kind and all(own.get(name) == options.get(name) for name in names)


def _at(model: Model, layer: Layer) -> str:
    return f"{model.path}: {layer.name} has"


def _input_size(model: Model, layer: Layer, part: str) -> int:
    """Return the number of a layer's input features: the rows of its first kernel."""
    import h5py

    group = member(model.arrays, layer.place, model.path)
    if group is not None and model.legacy:
        names = list(group.attrs.get("weight_names", []))
        found = member(group, text(names[0]), model.path) if names else None
    else:
        found = None if group is None else member(group, f"{part}vars/0", model.path)
    if not isinstance(found, h5py.Dataset) or len(found.shape) != 2:
        raise CheckpointError(f"{model.path}: the weights of {layer.name} are missing")
    return int(found.shape[0])


def _cell(model: Model, layer: Layer, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    activation = _activation(model, layer, options, "activation", "tanh")
    if kind == "SimpleRNN":
        return cell("ElmanCell", activation=activation)
    gates = _activation(model, layer, options, "recurrent_activation", "sigmoid")
    if kind == "LSTM":
        return lstm(gates, activation, activation)
    if (gates, activation) != ("sigmoid", "tanh"):
        raise CheckpointError(
            f"{_at(model, layer)} recurrent_activation={gates!r} and activation={activation!r}; a GRU is imported with "
            "sigmoid and tanh alone"
        )
    return cell("GRUCell" if options.get("reset_after", True) else "ResetFirstGRUCell")


def _activation(model: Model, layer: Layer, options: dict[str, Any], option: str, usual: str) -> str:
    name: Any = options.get(option, usual)
    name = name.get("config") if isinstance(name, dict) else "linear" if name is None else name
    found = _ACTIVATIONS.get(name) if isinstance(name, str) else None
    if found is None:
        raise CheckpointError(
            f"{_at(model, layer)} {option}={name!r:.80}, which the cells of this package don't have; they have "
            f"{', '.join(_ACTIVATIONS)}"
        )
    if found == "hard_sigmoid" and model.version.startswith(("1.", "2.")):
        raise CheckpointError(
            f"{_at(model, layer)} {option}='hard_sigmoid' of Keras {model.version}, which is 0.2·x + 0.5; here it is "
            "x/6 + 0.5, as since Keras 3"
        )
    return found


def _parameters(
    model: Model, layer: Layer, kind: str, options: dict[str, Any], size: int, units: int, part: str, first: int
) -> dict[str, Tensor]:
    """Return the parameters of a direction, in our order.

    Args:
        model: the file.
        layer: the layer.
        kind: the class of the recurrent layer.
        options: its options.
        size: number of its input features.
        units: number of its units.
        part: where its arrays are.
        first: number of its first array, where those of a layer are counted.
    """
    width = _BLOCKS[kind] * units
    index = first if model.legacy else 0
    order = _ORDER[kind]
    found = {
        "weight_ih": blocks(model.read(layer, part, index, (size, width)).T, order),
        "weight_hh": blocks(model.read(layer, part, index + 1, (units, width)).T, order),
    }
    if options.get("use_bias", True):
        twice = kind == "GRU" and options.get("reset_after", True)
        bias = model.read(layer, part, index + 2, (2, width) if twice else (width,))
        both = bias if twice else torch.stack([bias, torch.zeros_like(bias)])
        found |= {"bias_ih": blocks(both[0], order), "bias_hh": blocks(both[1], order)}
    return found


def _module(model: Model, layer: Layer) -> nn.Module | None:
    """Convert a layer by itself; None for one that is left out."""
    if layer.kind in (*_RECURRENT, "Bidirectional"):
        return stack([_imported(model, layer, reverse=False)])
    if layer.kind == "Embedding":
        rows, size = int(layer.options["input_dim"]), int(layer.options["output_dim"])
        return nn.Embedding.from_pretrained(model.read(layer, "", 0, (rows, size)), freeze=False)
    if layer.kind == "Dense":
        size, units, bias = _input_size(model, layer, ""), int(layer.options["units"]), bool(layer.options["use_bias"])
        weight = model.read(layer, "", 0, (size, units)).T
        linear = nn.Linear(size, units, bias=bias, dtype=weight.dtype)
        with torch.no_grad():
            linear.weight.copy_(weight)
            if bias:
                linear.bias.copy_(model.read(layer, "", 1, (units,)))
        return linear
    return None
