"""One step of a stack of cells without gradients, on the shortest path that computes exactly what the cells define."""

from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import Tensor

from unrolled.backends.compiled.stepping import step_compiled
from unrolled.backends.fused import step_fused
from unrolled.cells.base import Cell
from unrolled.cells.hooks import is_plain

# From this number of rows, the compiled kernel is faster than torch's functions for one step.
_FUSED_ROWS = 16


def step_layers(
    cells: Iterable[Any],
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
    layers, given, values, final = tuple(cells), projected, inputs, list[Any]()
    if backend == "loop" or type(state) is not tuple or len(cast("tuple[Any, ...]", state)) != len(layers):
        return None
    for cell, before in zip(layers, cast("tuple[Any, ...]", state), strict=True):
        read = values if given is None else given
        if not isinstance(read, Tensor) or cell.training or cell.observer is not None or not is_plain(cell):
            return None
        found = _step(cell, read, before, backend, given is not None)
        if found is None:
            return None
        given, values = None, found[0] if values is None else join(values, found[0])
        final.append(found[1])
    return cast(Tensor, values), tuple(final)


def _step(cell: Cell[Any], read: Tensor, state: Any, backend: str, projected: bool) -> tuple[Tensor, Any] | None:
    few = read.dim() == 2 and (len(read) < _FUSED_ROWS or not read.is_cpu)
    found = None
    if not projected and (backend == "fused" or (backend == "auto" and few)):
        found = step_fused(cell, read, state)
    if found is None and backend != "fused":
        found = step_compiled(cell, read, state, projected=projected)
    return found
