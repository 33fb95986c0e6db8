"""Recurrent operators of ONNX models (LSTM, GRU, RNN), read as data with the package onnx.

Weights of ONNX have one more axis, for directions. Their gates are in another order: i, o, f, c of an LSTM; z, r, h of
a GRU.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.deployment.importing.layers import ImportedLayer, blocks, cell, lstm, stack
from unrolled.descriptions import CheckpointError
from unrolled.layers.recurrent import Recurrent

_INSTALL = "pip install 'unrolled[import]'"
_ACTIVATIONS = {
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "softsign": "softsign",
    "softplus": "softplus",
    "hardsigmoid": "hard_sigmoid",
    "affine": "identity",
}
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_SCALES = {"hardsigmoid": (0.2, 0.5), "affine": (1.0, 0.0)}  # ONNX's alpha and beta, where a model gives none
_OURS = {"hardsigmoid": (1 / 6, 0.5), "affine": (1.0, 0.0)}  # those that our activations have
_WITH_ALPHA_ONLY = ("leakyrelu", "thresholdedrelu", "elu")  # activations that read one of the numbers
_WITH_BOTH = ("hardsigmoid", "affine", "scaledtanh")
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}  # ours, in blocks of theirs
_COUPLED = (0, 3, 1)
_PEEPHOLES = "iof"
_BETWEEN = ("Transpose", "Squeeze", "Reshape", "Dropout", "Identity")
_REFUSED = ("DynamicQuantizeLSTM",)


class _Graph(NamedTuple):
    """A model's graph: constants by name, the nodes by the names of their outputs, and the recurrent ones by name."""

    path: Path
    constants: dict[str, Any]
    producers: dict[str, Any]
    recurrent: dict[str, Any]


def from_onnx(path: str | Path, nodes: Sequence[str] | None = None, *, reverse: bool = False) -> Recurrent:
    """Convert recurrent nodes of an ONNX model to a `Recurrent` with copies of their weights, in evaluation mode.

    Inputs are (batch, time, features), for either `layout`. An initial state that is a constant of the model becomes a
    parameter (`learned_initial_state`); any other is the state that the caller passes.

    Args:
        path: the model. Its weights are within the file.
        nodes: names of LSTM, GRU or RNN nodes, of which each reads the previous one; by default all. A node without a
            name is called by its first output.
        reverse: whether a node with direction="reverse" is converted. Run its cell by `unroll(…, reverse=True)`.

    Raises:
        CheckpointError: a file that is damaged or of another kind, or a node that can't be expressed.
    """
    graph = _read(Path(path))
    wanted = list(graph.recurrent) if nodes is None else list(nodes)
    unknown = next((name for name in wanted if name not in graph.recurrent), None)
    if unknown is not None or not wanted:
        raise CheckpointError(
            f"{path}: {'there is no' if unknown is None else f'{unknown!r} is no'} LSTM, GRU or RNN node of the graph; "
            f"there are {', '.join(graph.recurrent) or 'none'}"
        )
    for before, after in pairwise(wanted):
        if not _follows(graph, graph.recurrent[before], graph.recurrent[after]):
            raise CheckpointError(
                f"{path}: {after} does not read the outputs of {before} at all steps alone; import them one by one: "
                f"nodes=[{before!r}]"
            )
    return stack([_imported(graph, name, graph.recurrent[name], reverse) for name in wanted])


def _read(path: Path) -> _Graph:
    try:
        import onnx
    except ImportError:
        raise CheckpointError(f"{path}: reading ONNX models needs the package onnx: {_INSTALL}") from None
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf's errors have no common base
        raise CheckpointError(f"{path}: the file is damaged, or no ONNX model ({error})") from None
    constants: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
    producers: dict[str, Any] = {}
    recurrent: dict[str, Any] = {}
    for node in graph.node:
        producers |= {name: node for name in node.output if name}
        if node.op_type in _REFUSED:
            raise CheckpointError(
                f"{path}: {node.name or node.op_type} is quantized; import the model before quantization"
            )
        if node.op_type in _DEFAULTS and node.domain in ("", "ai.onnx"):
            recurrent[node.name or next(filter(None, node.output), f"node {len(recurrent)}")] = node
        if node.op_type == "Constant" and node.output:
            constants.update((node.output[0], each.t) for each in node.attribute if each.name == "value")
    if not constants and not graph.node:
        raise CheckpointError(f"{path}: no ONNX model: its graph is empty")
    return _Graph(path, constants, producers, recurrent)


def _follows(graph: _Graph, before: Any, after: Any) -> bool:
    """Whether a node reads the outputs of another one, but for their layout."""
    name = _input(after, 0)
    while name in graph.producers:
        node = graph.producers[name]
        if node is before or (node.op_type == before.op_type and list(node.output) == list(before.output)):
            return bool(before.output) and name == before.output[0]
        if node.op_type not in _BETWEEN:
            return False
        name = _input(node, 0)
    return False


def _input(node: Any, index: int) -> str:
    return node.input[index] if index < len(node.input) else ""


def _constant(graph: _Graph, name: str, *, expanded: bool = False) -> Tensor | None:
    """Return a constant of the model; None if the value is computed, or an input.

    Args:
        graph: the model.
        name: the value's name.
        expanded: whether a constant that is expanded, to the batch, counts.
    """
    from onnx import TensorProto, numpy_helper

    while name not in graph.constants and name in graph.producers:
        node = graph.producers[name]
        if node.op_type not in (("Identity", "Expand") if expanded else ("Identity",)):
            return None
        name = _input(node, 0)
    if name not in graph.constants:
        return None
    tensor = graph.constants[name]
    if tensor.data_location == TensorProto.EXTERNAL:
        raise CheckpointError(
            f"{graph.path}: {name} is stored in another file; store it within the model: "
            "onnx.save(model, path, save_as_external_data=False)"
        )
    if tensor.data_type not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16):
        raise CheckpointError(
            f"{graph.path}: {name} holds no floating point numbers; import the model before quantization"
        )
    try:
        found: Any = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{graph.path}: the file is damaged: {name} ({error})") from None
    value = torch.as_tensor(found.astype("f8" if tensor.data_type == TensorProto.DOUBLE else "f4"))
    if not value.isfinite().all():
        raise CheckpointError(f"{graph.path}: {name} holds nan or inf")
    return value


def _weight(graph: _Graph, name: str, node: Any, index: int, shape: tuple[int, ...] | None = None) -> Tensor | None:
    """Return a node's input; None if it has none."""
    given = _input(node, index)
    if not given:
        return None
    value = _constant(graph, given)
    if value is None:
        raise CheckpointError(
            f"{graph.path}: {name} computes its weights {given}; fold constants first, such as by "
            "torch.onnx.export(…, do_constant_folding=True) or onnxruntime's basic optimizations"
        )
    if shape is not None and value.shape != shape:
        raise CheckpointError(f"{graph.path}: {given} of {name} has the shape {tuple(value.shape)}, expected {shape}")
    return value


def _imported(graph: _Graph, name: str, node: Any, reverse: bool) -> ImportedLayer:
    """Convert a node."""
    from onnx import helper

    options: dict[str, Any] = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    direction = _text(options.get("direction", b"forward"))
    if "clip" in options:
        raise CheckpointError(f"{graph.path}: {name} has clip={options['clip']:g}; cells of this package don't clip")
    if direction == "reverse" and not reverse:
        raise CheckpointError(
            f"{graph.path}: {name} has direction='reverse'; pass reverse=True, and run its cell by "
            "unroll(…, reverse=True)"
        )
    if direction not in ("forward", "reverse", "bidirectional"):
        raise CheckpointError(f"{graph.path}: {name} has direction={direction!r:.80}, which ONNX doesn't define")
    kind, directions = node.op_type, 2 if direction == "bidirectional" else 1
    recurrent = _weight(graph, name, node, 2)
    weight = _weight(graph, name, node, 1)
    if recurrent is None or recurrent.dim() != 3 or weight is None or weight.dim() != 3:
        raise CheckpointError(f"{graph.path}: {name} has no weights W and R with three axes")
    hidden, count = recurrent.shape[2], len(_ORDER[kind])
    shape = (directions, count * hidden)
    _expect(graph, name, "R", recurrent, (*shape, hidden))
    _expect(graph, name, "W", weight, (*shape, weight.shape[2]))
    bias = _weight(graph, name, node, 3, (directions, 2 * count * hidden))
    peepholes = _weight(graph, name, node, 7, (directions, 3 * hidden)) if kind == "LSTM" else None
    coupled = kind == "LSTM" and bool(options.get("input_forget", 0))
    order = _COUPLED if coupled else _ORDER[kind]
    found = [
        _parameters(weight[n], recurrent[n], None if bias is None else bias[n], order, count)
        | ({} if peepholes is None else _peepholes(peepholes[n], coupled))
        for n in range(directions)
    ]
    described = _cell(graph, name, kind, options, directions, peepholes is not None, coupled)
    initial = list(_initial(graph, name, node, options, directions, hidden))
    return ImportedLayer(name, described, weight.shape[2], hidden, found, initial)


def _expect(graph: _Graph, name: str, what: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise CheckpointError(f"{graph.path}: {what} of {name} has the shape {tuple(value.shape)}, expected {shape}")


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _parameters(
    weight: Tensor, recurrent: Tensor, bias: Tensor | None, order: Sequence[int], count: int
) -> dict[str, Tensor]:
    found = {"weight_ih": blocks(weight, order, count), "weight_hh": blocks(recurrent, order, count)}
    if bias is not None:
        of_input, of_state = bias.chunk(2)
        found |= {"bias_ih": blocks(of_input, order, count), "bias_hh": blocks(of_state, order, count)}
    return found


def _peepholes(value: Tensor, coupled: bool) -> dict[str, Tensor]:
    parts = zip(_PEEPHOLES, value.chunk(3), strict=True)
    return {f"peephole_{gate}": part for gate, part in parts if not (coupled and gate == "f")}


def _cell(
    graph: _Graph, name: str, kind: str, options: dict[str, Any], directions: int, peepholes: bool, coupled: bool
) -> dict[str, Any]:
    used = list(_activations(graph, name, kind, options, directions))
    size = len(_DEFAULTS[kind])
    if used[:size] != used[-size:]:
        raise CheckpointError(f"{graph.path}: {name} has other activations in each direction: {', '.join(used)}")
    if kind == "RNN":
        return cell("ElmanCell", activation=used[0])
    if kind == "LSTM":
        return lstm(*used[:3], peepholes=peepholes, coupled=coupled)
    if used[:2] != ["sigmoid", "tanh"]:
        raise CheckpointError(
            f"{graph.path}: {name} has the activations {', '.join(used[:2])}; a GRU is imported with sigmoid and tanh "
            "alone"
        )
    return cell("GRUCell" if options.get("linear_before_reset", 0) else "ResetFirstGRUCell")


def _activations(graph: _Graph, name: str, kind: str, options: dict[str, Any], directions: int) -> Iterator[str]:
    """Yield the activations of all directions by their names here."""
    given = [_text(each) for each in options.get("activations", [])] or [*_DEFAULTS[kind]] * directions
    if len(given) != len(_DEFAULTS[kind]) * directions:
        raise CheckpointError(
            f"{graph.path}: {name} has {len(given)} activations for {directions} directions of {kind}"
        )
    alphas, betas = (iter(options.get(each, [])) for each in ("activation_alpha", "activation_beta"))
    for each in given:
        key = each.lower()
        if key in _WITH_ALPHA_ONLY:
            next(alphas, None)
        alpha, beta = _SCALES.get(key, (0.0, 0.0))
        if key in _WITH_BOTH:
            alpha, beta = next(alphas, alpha), next(betas, beta)
        if key not in _ACTIVATIONS:
            raise CheckpointError(
                f"{graph.path}: {name} has the activation {each!r:.80}, which the cells of this package don't have; "
                f"they have {', '.join(_ACTIVATIONS)}"
            )
        if key in _OURS and not all(
            math.isclose(one, other, abs_tol=1e-6) for one, other in zip((alpha, beta), _OURS[key], strict=True)
        ):
            wanted = " and ".join(f"{value:.6g}" for value in _OURS[key])
            raise CheckpointError(
                f"{graph.path}: {name} has the activation {each} with alpha={alpha:g} and beta={beta:g}; the one "
                f"here has {wanted}"
            )
        yield _ACTIVATIONS[key]


def _initial(
    graph: _Graph, name: str, node: Any, options: dict[str, Any], directions: int, hidden: int
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the constant initial state of each direction; nothing if the caller passes it, or it is zero by default."""
    states = [
        _constant(graph, _input(node, index), expanded=True) if _input(node, index) else None
        for index in ((5, 6) if node.op_type == "LSTM" else (5,))
    ]
    if all(each is None for each in states):
        return
    ready: list[Tensor] = []
    for each in states:
        value = torch.zeros(directions, 1, hidden) if each is None else each
        value = value.transpose(0, 1) if options.get("layout", 0) and value.dim() == 3 else value
        if value.dim() != 3 or value.shape[2] != hidden or value.shape[0] not in (1, directions) or not value.shape[1]:
            raise CheckpointError(f"{graph.path}: the initial state of {name} has the shape {tuple(value.shape)}")
        if not torch.equal(value, value[:, :1].expand_as(value)):
            raise CheckpointError(
                f"{graph.path}: the initial states of {name} differ between the rows of a batch; make them an input of "
                "the model, and pass them as the state"
            )
        ready.append(value[:, 0].expand(directions, hidden))
    yield from zip(*ready, strict=True)
