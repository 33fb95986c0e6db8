"""The backend of exported programs: one scan over time, whose body is the step of a cell, for any number of steps.

`torch.export` records a loop in Python with as many steps as the example has. A scan is one node of the graph instead.
It becomes ONNX's operator Scan.
"""

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
        first = leaves(state)
        # What the body reads from outside must be its argument: the weights are exchanged for arguments.
        held = {f"cell.{name}": tensor for name, tensor in (*cell.named_parameters(), *cell.named_buffers())}
        step = _Step(cell)

        def body(*given: Tensor) -> tuple[Tensor, ...]:
            before = rebuild(state, given[: len(first)])
            projected, *masks = given[len(first) : len(given) - len(held)]
            weights = dict(zip(held, given[len(given) - len(held) :], strict=True))
            output, after = torch.func.functional_call(step, weights, (projected, before))
            for mask in masks:
                after = where(mask, after, before)
            return *(leaf.clone() for leaf in leaves(after)), output.clone()  # results must not alias

        read = [cell.project(inputs).transpose(0, 1)]
        if lengths is not None:
            read.append(mask_from_lengths(lengths, inputs.shape[1]).t())
        *last, outputs = torch.ops.higher_order.scan(
            body, tuple(leaf.clone() for leaf in first), tuple(read), tuple(held.values())
        )
        return outputs.transpose(0, 1), rebuild(state, last)


class _Step(nn.Module):
    def __init__(self, cell: Cell[Any]) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, projected: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.cell.step(projected, state)
