"""ONNX models of a network's graphs, with what a program needs to know in their metadata."""

import json
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.resources import files as packaged
from typing import Any

import torch

from unrolled.checkpoint import Bundle
from unrolled.deployment.export.graphs import Graph
from unrolled.deployment.export.metadata import PROCESSOR, as_json, describe
from unrolled.deployment.export.networks import graphs_of
from unrolled.deployment.export.onnx.operators import OPSET, for_onnx
from unrolled.deployment.export.onnx.quantization import quantization_costs, quantize
from unrolled.deployment.export.onnx.quiet import quiet
from unrolled.deployment.export.targets import Export
from unrolled.deployment.export.tracing import axis_names, traced
from unrolled.heads.categorical import CategoricalHead
from unrolled.models.decoders.base import Decoder
from unrolled.processing.text.base import Tokenizer

SEARCH = "beam_search.py"

_LARGEST = 2**31 - 1  # bytes of a model, and what is computed of constants beforehand


def export_onnx(bundle: Bundle, *, int8: bool = False) -> Export:
    """Export a trained network as ONNX models, one a graph: whole sequences, and a step.

    Batch, time and lengths may have any size. States are inputs and outputs: `state_0_h` and `next_state_0_h`.
    LSTM, GRU and Elman cells become ONNX's operators, other cells its operator Scan. Each model has the content of
    `processor.json` in its metadata, under the name of each part.

    Args:
        bundle: a trained network, on any device.
        int8: store matrices as 8-bit integers; see `quantization`. The notes say how small files become, and what it
            changes.

    Returns:
        The files: `sequence.onnx`, `step.onnx`, … and `processor.json`; and `beam_search.py` beside a decoder of tokens
        with a source.

    Raises:
        ValueError: a package is missing; a network without such graphs, with hooks, or one that torch.export cannot
            record; a model above 2 GB; 8-bit integers that make no model smaller.
    """
    check_installed(*(("onnxruntime",) if int8 else ()))
    graphs = graphs_of(bundle)
    described = describe(bundle, graphs)
    exact = {graph.name: model_of(graph, described) for graph in graphs}
    models = quantize(exact, bundle.network) if int8 else exact
    notes = quantization_costs(bundle.network, graphs, exact, models) if int8 else []
    files = {f"{name}.onnx": model for name, model in models.items()} | {PROCESSOR: as_json(described)}
    if _searched(bundle):
        files[SEARCH] = (packaged(__package__ or "") / SEARCH).read_bytes()
    return Export(files, tuple(notes))


def _searched(bundle: Bundle) -> bool:
    """Whether a network writes tokens about a source, which are found by beam search."""
    decoder, target = getattr(bundle.network, "decoder", None), bundle.processor.target
    return (
        isinstance(decoder, Decoder)
        and isinstance(decoder.head, CategoricalHead)
        and decoder.input_axes == ""
        and not decoder.condition_size
        and isinstance(target, Tokenizer)
    )


def check_installed(*names: str) -> None:
    """Check that the packages of an export are installed.

    Raises:
        ValueError: a missing package, with how to install it.
    """
    for name in ("onnx", "onnxscript", *names):
        try:
            import_module(name)
        except ModuleNotFoundError:
            raise ValueError(f"exporting to ONNX needs {name}: pip install 'unrolled[onnx]'") from None


def model_of(graph: Graph, described: Mapping[str, Any]) -> bytes:
    """Return a graph as a serialized ONNX model.

    Args:
        graph: the graph.
        described: what is written to the metadata of the model.

    Raises:
        ValueError: see `export_onnx`.
    """
    import onnx_ir
    from onnxscript.optimizer import optimize_ir

    program = traced(graph, for_onnx)
    with quiet(), torch.no_grad():
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[port.name for port in graph.inputs],
                output_names=list(graph.outputs),
                opset_version=OPSET,
                optimize=False,
                verbose=False,
            )
        except Exception as error:  # of any kind, with the operator's name in its cause
            cause = error.__cause__ or error
            raise ValueError(
                f"ONNX cannot express the graph {graph.name!r}: {' '.join(str(cause).split()):.400}; use other "
                "operations in this network, or --to program"
            ) from error
        model: Any = exported.model  # pyright: ignore[reportOptionalMemberAccess]
        optimize_ir(model, input_size_limit=_LARGEST, output_size_limit=_LARGEST)  # weights in the operators' layout
    _name_axes(model.graph, axis_names(program, graph))
    _forget_source(model)
    model.metadata_props.update({name: _text(value) for name, value in described.items()} | {"graph": graph.name})
    proto = onnx_ir.serde.serialize_model(model)
    if proto.ByteSize() > _LARGEST:
        raise ValueError(f"the graph {graph.name!r} has {proto.ByteSize():,} bytes, and a file of ONNX at most 2 GB")
    return proto.SerializeToString()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _name_axes(graph: Any, names: Mapping[str, str]) -> None:
    """Rename the symbols of all shapes: s27 → time."""
    symbol = re.compile(r"\b(?:" + "|".join(map(re.escape, names)) + r")\b")
    for value in _values(graph):
        if value.shape is not None and names:
            for place, size in enumerate(value.shape):
                if not isinstance(size, int) and size.value is not None:
                    value.shape[place] = symbol.sub(lambda found: names[found[0]], size.value)


def _values(graph: Any) -> Iterator[Any]:
    """Yield all values of a graph and of the graphs within its nodes."""
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
        for attribute in node.attributes.values():
            if attribute.type.name == "GRAPH":
                yield from _values(attribute.as_graph())


def _forget_source(model: Any) -> None:
    """Remove what the exporter notes of the code of each node, such as paths on this machine."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in _values(model.graph):
        value.metadata_props.clear()
        if value.producer() is not None:
            value.producer().metadata_props.clear()
            value.producer().doc_string = None
