"""What a program needs to know of an exported network: tensors, states before the first step, the processor."""

import json
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

import unrolled
from unrolled.checkpoint import Bundle
from unrolled.deployment.export.graphs import Graph
from unrolled.processing.text.base import Tokenizer

PROCESSOR = "processor.json"
_KINDS = {torch.int64: "int64", torch.bool: "bool", torch.float32: "float32", torch.float64: "float64"}


def describe(bundle: Bundle, graphs: list[Graph]) -> dict[str, Any]:
    """Return what `processor.json` holds, as plain data.

    `inputs` of a graph have the name, the dtype and the axes, names where sizes vary and numbers elsewhere.
    `initial_state` has the values of each state before the first step: one number, or a (nested) list without the axis
    of the batch.
    """
    choices = bundle.info.get("choices", {})
    described = {
        "task": choices.get("task"),
        "network": type(bundle.network).__name__,
        "head": _head(bundle.network),
        **_numbers(bundle.network),
        "versions": {
            "exported": {"unrolled": unrolled.__version__, "torch": torch.__version__},
            "trained": bundle.info.get("versions", {}),
        },
        "graphs": {graph.name: _graph(graph) for graph in graphs},
        "processor": bundle.processor.to_dict(),
        "vocabulary": {
            side: _vocabulary(transform)
            for side, transform in bundle.processor._asdict().items()
            if isinstance(transform, Tokenizer)
        },
    }
    return {name: value for name, value in described.items() if value}


def as_json(description: dict[str, Any]) -> bytes:
    """Return a description as a JSON file."""
    return (json.dumps(description, ensure_ascii=False, indent=1) + "\n").encode()


def _graph(graph: Graph) -> dict[str, Any]:
    inputs = [
        {
            "name": port.name,
            "dtype": _KINDS[port.example.dtype],
            "axes": [name or size for name, size in zip_longest(port.axes, port.example.shape, fillvalue="")],
        }
        for port in graph.inputs
    ]
    first = {name: _values(row) for name, row in graph.initial.items()}
    return {"inputs": inputs, "outputs": list(graph.outputs), **({"initial_state": first} if first else {})}


def _values(row: Tensor) -> Any:
    if row.numel() and bool((row == row.flatten()[0]).all()):
        return row.flatten()[0].item()
    return row.tolist()


def _vocabulary(tokenizer: Tokenizer) -> dict[str, Any]:
    """The text of each id, the ids that mean something else, and how a text is split, if a pattern tells it."""
    how = {
        "pattern": tokenizer.pattern,
        "lowercase": tokenizer.lowercase,
        "max_length": tokenizer.max_length,
        "joined": tokenizer.joined,
    }
    return {
        "start": tokenizer.start,
        "unknown": tokenizer.unknown,
        **(how if tokenizer.pattern else {}),
        "symbols": tokenizer.symbols(range(tokenizer.size)),
    }


def _head(network: Any) -> str | None:
    head = _head_of(network)
    return None if head is None else type(head).__name__


def _numbers(network: Any) -> dict[str, Any]:
    """What a program needs to run steps, and to read the outputs."""
    found = {name: getattr(network, name, None) for name in ("horizon", "num_glimpses")}
    return {**found, "quantiles": list(getattr(_head_of(network), "quantiles", ()))}


def _head_of(network: Any) -> Any:
    return getattr(getattr(network, "decoder", network), "head", None)
