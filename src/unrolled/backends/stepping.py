"""One step of a stack of cells without gradients, on the shortest path that computes exactly what the cells define."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from torch import Tensor

from unrolled.backends.compiled.stepping import step_compiled
from unrolled.backends.fused import step_fused
from unrolled.cells.base import Cell
from unrolled.cells.hooks import is_plain
from unrolled.modes import PLAIN_TENSORS

# From this number of rows, the compiled kernel is faster than torch's functions for one step.
_FUSED_ROWS = 16


def step_layers(
    cells: Collection[Any],
    projected: Tensor | None,
    state: Any,
    inputs: Tensor | None,
    backend: str,
    join: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, tuple[Any, ...]] | None:
    """Compute one step of a stack of cells, where `modes.direct` is true.

    Args:
        cells: the cells.
        projected: the result of the first cell's `project`; None to project `inputs`.
        state: a tuple with the state of each cell. It need not have been checked.
        inputs: (batch, input); None for projected inputs without a residual connection.
        backend: a backend's name, or "auto": torch's function for few rows, if there is one, or else a compiled kernel.
        join: combines the inputs of a cell with its outputs.

    Returns:
        The output of the last cell and the next states. None if the loop is to compute the step: for a cell that has
        no such function, has hooks, is recorded or trained, and for an argument that isn't as it should be.
    """
    final: list[Any] = []
    given: Any = projected
    values: Any = inputs
    states: Sequence[Any] = state if backend != "loop" and type(state) is tuple else ()
    if len(states) != len(cells):
        return None
    for cell, before in zip(cells, states, strict=True):
        read = values if given is None else given
        if type(read) not in PLAIN_TENSORS or read.dim() != 2 or cell.training or cell.observer is not None:
            return None
        found = _step(cell, read, before, backend, given is not None) if is_plain(cell) else None
        if found is None:
            return None
        given, values = None, found[0] if values is None else join(values, found[0])
        final.append(found[1])
    return None if values is None else (values, tuple(final))


def _step(cell: Cell[Any], read: Tensor, state: Any, backend: str, projected: bool) -> tuple[Tensor, Any] | None:
    few = read.shape[0] < _FUSED_ROWS or not read.is_cpu
    if not projected and (backend == "fused" or (backend == "auto" and few)):
        found = step_fused(cell, read, state)
        if found is not None:
            return found
    return None if backend == "fused" else step_compiled(cell, read, state, projected=projected)
