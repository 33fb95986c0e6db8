"""Weights of ONNX models as 8-bit integers, and what the models compute then.

onnxruntime's dynamic quantization replaces products with constant matrices, within Scan, too, convolutions, LSTMs and
embeddings: weights are 8-bit integers with a scale for each row, and what they are multiplied by is rounded to 8 bits
at each call, by the largest value of the whole batch. There are no such kernels of GRU and RNN: their weights are 8-bit
integers in the file, and float32 when they run.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.deployment.export.graphs import Graph, Port
from unrolled.deployment.export.int8 import ROWS, STEPS, cost_of, quantized
from unrolled.deployment.export.onnx.quiet import quiet
from unrolled.models.embeddings import OneHotEmbedding
from unrolled.models.forecasters.base import Forecaster

_SIZES = {"batch": ROWS, "time": STEPS, "source": STEPS, "symbols": 12}


def quantize(models: Mapping[str, bytes], network: nn.Module) -> dict[str, bytes]:
    """Return models with 8-bit weights; one that would be no smaller stays as it is.

    Args:
        models: serialized models by their names.
        network: what they were made of, for the error.

    Raises:
        ValueError: no model is smaller with 8-bit weights.
    """
    found = {name: min(model, _quantized(model), key=len) for name, model in models.items()}
    if all(found[name] == model for name, model in models.items()):
        kinds = " and ".join(sorted({str(each.dtype).removeprefix("torch.") for each in network.parameters()}))
        raise ValueError(
            f"int8 would make no model of this {type(network).__name__} smaller: it stores float32 matrices of "
            "products, convolutions, embeddings and recurrent operators, and this network has few or none (its weights "
            f"are {kinds}); leave int8 out"
        )
    return found


def _quantized(model: bytes) -> bytes:
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    with quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(onnx.load_from_string(model), path, per_channel=True, extra_options={"EnableSubgraph": True})
        proto = onnx.load(path)
    for node in [node for node in proto.graph.node if node.op_type in ("GRU", "RNN")]:
        _store(proto.graph, node, 1)
        _store(proto.graph, node, 2)
    return proto.SerializeToString()


def _store(graph: Any, node: Any, place: int) -> None:
    """Store an input (1, rows, columns) of a node as 8-bit integers, which an operator before the node converts."""
    import onnx

    name = node.input[place]
    weight = next((each for each in graph.initializer if each.name == name), None)
    if weight is None or weight.data_type != onnx.TensorProto.FLOAT:
        return
    integers, scales = quantized(torch.from_numpy(onnx.numpy_helper.to_array(weight).copy())[0])
    graph.initializer.remove(weight)
    graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(integers.unsqueeze(0).numpy(), f"{name}_int8"),
            onnx.numpy_helper.from_array(scales.numpy(), f"{name}_scale"),
        ]
    )
    converting = onnx.helper.make_node("DequantizeLinear", [f"{name}_int8", f"{name}_scale"], [name], axis=1)
    graph.node.insert(0, converting)


def quantization_costs(
    network: nn.Module, graphs: Sequence[Graph], exact: Mapping[str, bytes], rounded: Mapping[str, bytes]
) -> list[str]:
    """Return sentences on the sizes of models, and on how far what they compute is apart.

    Args:
        network: the network.
        graphs: what the models were made of.
        exact: serialized models by the names of the graphs.
        rounded: those with 8-bit weights.
    """
    notes = [
        f"{name}.onnx: {len(model):,} bytes"
        + (f", {len(rounded[name]):,} with 8-bit weights" if rounded[name] != model else "; 8-bit weights save none")
        for name, model in exact.items()
    ]
    outputs = [_outputs(network, graphs, models) for models in (exact, rounded)]
    return notes + [f"{name}.onnx: {cost_of(network, outputs[0][name], outputs[1][name])}" for name in outputs[0]]


def _outputs(network: nn.Module, graphs: Sequence[Graph], models: Mapping[str, bytes]) -> dict[str, Tensor]:
    """Return what the graphs "sequence" and "step" predict of random inputs, a step after the graphs before it."""
    generator = torch.Generator().manual_seed(0)
    known: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    for graph in graphs:
        run = _runner(models[graph.name], graph)
        known |= {name: row.expand(ROWS, *row.shape) for name, row in graph.initial.items()}
        predicts, steps = graph.name in ("sequence", "step"), list[Tensor]()
        if predicts:
            known.pop("inputs", None)  # those of the source
        for _ in range(STEPS if graph.name == "step" else 1):
            given = {
                port.name: known[port.name] if port.name in known else _drawn(port, network, generator)
                for port in graph.inputs
            }
            values = run(given)
            known |= {name.removeprefix("next_"): value for name, value in values.items() if name.startswith("next_")}
            known |= {} if predicts else given | values
            steps.append(values[graph.outputs[0]])
        if predicts:
            found[graph.name] = torch.stack(steps, 1)
    return found


def _runner(model: bytes, graph: Graph) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    kept = {each.name for each in session.get_inputs()}  # an input that nothing depends on is left out

    def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        read = {name: value.contiguous().numpy() for name, value in given.items() if name in kept}
        return dict(zip(graph.outputs, map(torch.from_numpy, session.run(None, read)), strict=True))

    return run


def _drawn(port: Port, network: nn.Module, generator: torch.Generator) -> Tensor:
    """Return random tokens, normal numbers, or the lengths of whole sequences."""
    named = zip_longest(port.axes, port.example.shape, fillvalue="")
    shape = [_SIZES[name] if name else int(size) for name, size in named]
    if port.name == "lengths":
        return torch.full(shape, STEPS)
    if port.example.dtype == torch.bool:
        return torch.ones(shape, dtype=torch.bool)
    if port.example.dtype == torch.int64:
        return torch.randint(_fewest_tokens(network), shape, generator=generator)
    drawn = torch.randn(shape, generator=generator, dtype=port.example.dtype)
    if isinstance(network, Forecaster) and port.name == "past":
        drawn[..., network.num_targets : 2 * network.num_targets] = 1.0  # all are observed
    return drawn


def _fewest_tokens(network: nn.Module) -> int:
    """Return a number of token ids that every embedding of a network has."""
    sizes = [each.num_embeddings for each in network.modules() if isinstance(each, nn.Embedding)]
    sizes += [each.output_size for each in network.modules() if isinstance(each, OneHotEmbedding)]
    return min(sizes, default=1)
