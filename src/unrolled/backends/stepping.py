"""One step of a stack of cells without gradients, on the shortest path that computes exactly what the cells define."""

from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor

from unrolled.backends.compiled.stepping import step_compiled
from unrolled.backends.fused import step_fused
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
    join: Callable[[Tensor, Tensor], Tensor] | None,
) -> tuple[Tensor, tuple[Any, ...]] | None:
    """Compute one step of a stack of cells, where `modes.direct` is true.

    Args:
        cells: the cells.
        projected: the result of the first cell's `project`; None to project `inputs`.
        state: a tuple with the state of each cell. It need not have been checked.
        inputs: (batch, input); None for projected inputs without a residual connection.
        backend: a backend's name, or "auto": torch's function for few rows, if there is one, or else a compiled kernel.
        join: combines the inputs of a cell with its outputs; None if the outputs are all that the next cell reads.

    Returns:
        The output of the last cell and the next states. None if the loop is to compute the step: for a cell that has
        no such function, has hooks, is recorded or trained, and for an argument that isn't as it should be.
    """
    if backend == "loop" or type(state) is not tuple:
        return None
    states: tuple[Any, ...] = state
    if len(states) != len(cells):
        return None
    given: Any = projected
    values: Any = inputs
    final: list[Any] = []
    for cell, before in zip(cells, states, strict=True):
        read = values if given is None else given
        if type(read) not in PLAIN_TENSORS or cell.training or cell.observer is not None or not is_plain(cell):
            return None
        shape = read.shape
        if len(shape) != 2:
            return None
        found = None
        if given is None and (
            backend == "fused" or (backend == "auto" and (shape[0] < _FUSED_ROWS or not read.is_cpu))
        ):
            found = step_fused(cell, read, before)
        if found is None:
            if backend == "fused":
                return None
            found = step_compiled(cell, read, before, projected=given is not None)
            if found is None:
                return None
        output, after = found
        given, values = None, output if values is None or join is None else join(values, output)
        final.append(after)
    return None if values is None else (values, tuple(final))
