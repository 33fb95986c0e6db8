"""Graphs as programs of torch.export, with varying sizes of batch and time."""

from contextlib import nullcontext
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from unrolled.backends import Substitute, substituted
from unrolled.deployment.export.graphs import Graph

_FEWEST = {"symbols": 3}  # a word and two of its characters: with fewer, the convolution is another one


def traced(graph: Graph, substitute: Substitute | None = None) -> ExportedProgram:
    """Record a graph as a program.

    Args:
        graph: the graph.
        substitute: see `unrolled.backends.substituted`; a scan of each cell's step by default.

    Raises:
        ValueError: a network that torch.export cannot record.
    """
    names = sorted({axis for port in graph.inputs for axis in port.axes if axis})
    sizes = {name: Dim(name, min=_FEWEST.get(name, 0)) for name in names}
    shapes = tuple({place: sizes[axis] for place, axis in enumerate(port.axes) if axis} for port in graph.inputs)
    examples = tuple(port.example for port in graph.inputs)
    with torch.no_grad(), nullcontext() if substitute is None else substituted(substitute):
        try:
            return torch.export.export(graph.module, examples, dynamic_shapes=(shapes,))
        except ValueError:
            raise
        except Exception as error:  # torch.export raises any exception of what it runs
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"torch.export cannot record the graph {graph.name!r} with any batch and time: {reason:.400}; a cell "
                "of your own must not branch on values or sizes, nor convert tensors to numbers"
            ) from error


def axis_names(program: ExportedProgram, graph: Graph) -> dict[str, str]:
    """Return for each symbol of a program's shapes the name of its axis, such as s27 → time."""
    found: dict[str, str] = {}
    places = [node for node in program.graph.nodes if node.op == "placeholder"][-len(graph.inputs) :]
    for node, port in zip(places, graph.inputs, strict=True):
        value: Any = node.meta["val"]
        for size, axis in zip(value.shape, port.axes, strict=False):
            if axis:
                found[str(size)] = axis
    return found
