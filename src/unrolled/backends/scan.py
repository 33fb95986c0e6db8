"""The backend of exported programs: one scan over time, whose body is the step of a cell, for any number of steps.

`torch.export` records a loop in Python with as many steps as the example has. A scan is one node of the graph instead.
It becomes ONNX's operator Scan.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.backends.base import Backend
from unrolled.cells.base import Cell
from unrolled.cells.hooks import is_plain
from unrolled.sequences import mask_from_lengths
from unrolled.state import leaves, rebuild, where


class ScanBackend(Backend):
    """One `torch.ops.higher_order.scan` for all steps, in code that is being exported."""

    name = "scan"

    def refuses(self, cell: Cell[Any], inputs: Tensor) -> str | None:
        kind = type(cell).__name__
        if not torch.compiler.is_exporting() or torch.compiler.is_dynamo_compiling():
            return "only torch.export with strict=False records a scan"
        if not is_plain(cell):
            return (
                f"{kind} has hooks or parametrizations, which a scan would call at each step: make its weights plain, "
                "as torch.nn.utils.parametrize.remove_parametrizations and torch.nn.utils.prune.remove do"
            )
        if cell.training:
            return f"{kind} is in training mode, and a scan draws no noise: call eval() before the export"
        return None

    def run(
        self, cell: Cell[Any], inputs: Tensor, state: Any, lengths: Tensor | None, reverse: bool, noise: Any
    ) -> tuple[Tensor, Any]:
        read = [cell.project(inputs).transpose(0, 1)]
        if lengths is not None:
            read.append(mask_from_lengths(lengths, inputs.shape[1]).t())
        last, outputs = scanned(_Step(cell, state), leaves(state), read)
        return outputs.transpose(0, 1), rebuild(state, last)


def scanned(step: nn.Module, state: Sequence[Tensor], read: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Call a module for each item of the first axis of tensors, as one scan; return the last state, and all outputs.

    Args:
        step: maps the tensors of a state and an item of each tensor of `read` to those of the next state and an output.
        state: the tensors before the first item.
        read: (time, ...), one or more items of each.
    """
    # What the body reads from outside must be its argument: the weights are exchanged for arguments.
    held = dict((*step.named_parameters(), *step.named_buffers()))

    def body(*given: Tensor) -> tuple[Tensor, ...]:
        inputs, weights = given[: len(given) - len(held)], given[len(given) - len(held) :]
        found = torch.func.functional_call(step, dict(zip(held, weights, strict=True)), inputs)
        return tuple(leaf.clone() for leaf in found)  # results must not alias

    first = tuple(leaf.clone() for leaf in state)
    *last, outputs = torch.ops.higher_order.scan(body, first, tuple(read), tuple(held.values()))
    return last, outputs


class _Step(nn.Module):
    def __init__(self, cell: Cell[Any], like: Any) -> None:
        super().__init__()
        self.cell = cell
        self._like = like

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        count = len(leaves(self._like))
        before, (projected, *masks) = rebuild(self._like, given[:count]), given[count:]
        output, after = self.cell.step(projected, before)
        for mask in masks:
            after = where(mask, after, before)
        return *leaves(after), output
