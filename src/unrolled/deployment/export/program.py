"""Export as programs of torch.export, which run with torch alone, without this package."""

import io

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from unrolled.checkpoint import Bundle
from unrolled.deployment.export.metadata import PROCESSOR, as_json, describe
from unrolled.deployment.export.networks import graphs_of
from unrolled.deployment.export.targets import Export
from unrolled.deployment.export.tracing import traced


def export_program(bundle: Bundle) -> Export:
    """Export a trained network as programs of torch.export, one a graph: whole sequences, and a step.

    `torch.export.load("step.pt2").module()` is a module of the inputs, in the order that `processor.json` lists them
    in. Batch and time may have any size. `processor.json` is an extra file of each program, too.

    Args:
        bundle: a trained network, on any device; the programs run on the CPU.

    Returns:
        The files: `sequence.pt2`, `step.pt2`, … and `processor.json`.

    Raises:
        ValueError: a network without such graphs, with hooks, or one that torch.export cannot record.
    """
    graphs = graphs_of(bundle)
    described = as_json(describe(bundle, graphs))
    files: dict[str, bytes] = {}
    for graph in graphs:
        file = io.BytesIO()
        torch.export.save(_without_traces(traced(graph)), file, extra_files={PROCESSOR: described.decode()})
        files[f"{graph.name}.pt2"] = file.getvalue()
    return Export({**files, PROCESSOR: described})


def _without_traces(program: ExportedProgram) -> ExportedProgram:
    """Remove the lines of code that the operations came from: they contain the paths of this machine."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program
