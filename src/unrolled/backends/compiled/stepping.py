"""One step of a compiled cell without gradients, on the shortest path to its kernel.

The operator of a whole pass, with its support of derivatives and torch.compile, costs far more than a step of a small
layer. A step calls the kernel directly. It reads the weights where they are, at each call, so that no change of a
weight can be missed. What is remembered of a cell is its kernel, until an attribute of the cell is replaced.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from unrolled.backends.compiled import MODULE_ATTRIBUTES, kernel_for
from unrolled.backends.compiled.kernel import Kernel
from unrolled.cells.base import Cell
from unrolled.cells.pointwise import PointwiseCell
from unrolled.modes import PLAIN_TENSORS

_WORK = 2**20  # multiplications that are worth another thread


def step_compiled(cell: Cell[Any], inputs: Tensor, state: Any, *, projected: bool) -> tuple[Tensor, Any] | None:
    """Compute one step of a cell in evaluation mode, where `modes.direct` is true.

    Args:
        cell: any cell without hooks.
        inputs: (batch, input), or the result of the cell's `project`.
        state: the state before the step. It need not have been checked.
        projected: whether the inputs are projected.

    Returns:
        The output and the next state; None if the cell has no kernel, or a tensor isn't as the kernel needs it.
    """
    if not isinstance(cell, PointwiseCell) or not inputs.is_cpu:
        return None
    found = _steppers.get(cell)
    if found is None or not found.serves(cell):
        found = _steppers[cell] = _Stepper(cell)
    if found.kernel is None:
        return None
    return found.step(found.kernel, cell, inputs, state, projected)


class _Stepper:
    """The kernel of a cell in evaluation mode, and what it was found for.

    Attributes:
        kernel: the kernel; None if there is none.
    """

    def __init__(self, cell: Cell[Any]) -> None:
        attributes: dict[str, Any] = vars(cell)
        self._seen = tuple(dict(part) for part in _watched(attributes))
        self._precision = torch.get_float32_matmul_precision()
        # A change within a list or a module would not be seen: the kernel of such a cell is found at each step.
        self._lasting = not attributes["_modules"] and not any(map(_may_change, attributes.items()))
        self.kernel, self._projects = kernel_for(cell)
        if self.kernel is not None:
            layout, hidden = self.kernel.program.layout, cell.hidden_size
            sizes = ((len(layout.fed), layout.recurrent), *layout.further) if layout.fed else ()
            self._blocks, self._own = layout.projected * hidden, layout.own
            further: list[tuple[int, ...]] = []
            for inside, outside in sizes:
                further += (outside * hidden, inside * hidden), (outside * hidden,)
            self._weights = [(self._blocks, cell.input_size), (self._blocks,), *(further[:2] or ((), ()))]
            self._further, self._states = further[2:], layout.states
            self._shaped: tuple[Any, ...] = (None, False)
            kind = cast("type[PointwiseCell[Any]]", type(cell))
            self._own_products = bool(layout.fed) and (
                not attributes.keys().isdisjoint(("products", "recurrent_weight"))
                or kind.products is not PointwiseCell.products
                or kind.recurrent_weight is not PointwiseCell.recurrent_weight
            )
            self._work = sum(outside * hidden * inside * hidden for inside, outside in sizes)

    def serves(self, cell: Cell[Any]) -> bool:
        """Return whether the cell is as it was when its kernel was found."""
        attributes, (before, parameters, buffers) = vars(cell), self._seen
        if not self._lasting or torch.get_float32_matmul_precision() != self._precision:
            return False
        try:  # objects are equal to themselves; those that can't be compared were replaced
            same = attributes == before and attributes["_parameters"] == parameters
            return same and attributes["_buffers"] == buffers
        except (RuntimeError, TypeError, ValueError):
            return False

    def step(
        self, kernel: Kernel, cell: PointwiseCell[Any], inputs: Tensor, state: Any, projected: bool
    ) -> tuple[Tensor, Any] | None:
        """See `step_compiled`."""
        if type(state) is not cell.state_type or inputs.layout is not torch.strided:
            return None
        if not projected and not self._projects:
            inputs, projected = cell.project(inputs), True
        batch, shaped = inputs.shape[0], self._shaped
        if batch != shaped[0] or projected is not shaped[1]:
            shaped = self._shaped = (batch, projected, *self._shapes(kernel, cell, batch, projected))
        _, _, shapes, width, threads = shaped
        parameters: dict[str, Any] = vars(cell)["_parameters"]
        weights = [None, None] if projected else [parameters["weight_ih"], parameters["bias_ih"]]
        weights += self._recurrent(cell, parameters)
        before = [leaf.contiguous() for leaf in state]
        given = [inputs.contiguous(), *weights[:4], *before, *weights[4::2], *weights[5::2]]
        if self._own:
            given += self._own_values(cell, parameters)
        addresses = _addresses(given, shapes, kernel.dtype) if batch else None
        if addresses is None:
            return None
        output, same = torch.empty_like(before[0]), kernel.plan.output_field
        final = [output if field == same else torch.empty_like(leaf) for field, leaf in enumerate(before)]
        addresses += [output.data_ptr(), *[leaf.data_ptr() for leaf in final]]
        kernel.step(batch, width, cell.hidden_size, min(threads, torch.get_num_threads()), addresses)
        return output, cell.state_type(*final)

    def _shapes(
        self, kernel: Kernel, cell: PointwiseCell[Any], batch: int, projected: bool
    ) -> tuple[list[tuple[int, ...]], int, int]:
        """Return the shapes of the tensors that a step reads, the number of input features, and that of threads."""
        hidden, width = cell.hidden_size, self._blocks if projected else cell.input_size
        shapes = [(batch, width), *self._weights, *[(batch, hidden)] * self._states]
        shapes += [*self._further[::2], *self._further[1::2], *[(hidden,)] * kernel.own]
        work = batch * (self._work + (0 if projected else self._blocks * width))
        return shapes, width, min(batch, 1 + work // _WORK)

    def _recurrent(self, cell: PointwiseCell[Any], parameters: Mapping[str, Any]) -> list[Any]:
        """Return the weights and biases of the products within a step, or two None."""
        if self._own_products:
            return [part for product in cell.products(cell.recurrent_weight()) for part in product]
        return [parameters["weight_hh"], parameters["bias_hh"]] if self._weights[2] else [None, None]

    def _own_values(self, cell: PointwiseCell[Any], parameters: Mapping[str, Any]) -> Sequence[Tensor]:
        """Return the parameters and buffers that `pointwise` uses, (hidden) each."""
        found = [parameters[name] if name in parameters else getattr(cell, name) for name in self._own]
        if all(value.shape == (cell.hidden_size,) for value in found):
            return found
        values = [value.expand(cell.hidden_size) if value.numel() == 1 else value for value in found]
        return torch.cat(values).split(cell.hidden_size)


def _addresses(
    tensors: Sequence[Tensor | None], shapes: Sequence[tuple[int, ...]], dtype: torch.dtype
) -> list[int] | None:
    """Return the addresses of tensors, 0 for None.

    Returns:
        None if the kernel can't read one of them: for their shapes, dtype, device and order in memory.
    """
    if len(tensors) != len(shapes):
        return None
    for tensor, shape in zip(tensors, shapes, strict=True):
        if tensor is None:
            continue
        if tensor.shape != shape or tensor.dtype is not dtype or not tensor.is_cpu or type(tensor) not in PLAIN_TENSORS:
            return None
        if tensor.layout is not torch.strided or not tensor.is_contiguous():
            return None
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]


def _watched(attributes: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return what must stay the same: options, parameters and buffers by name."""
    return attributes, attributes["_parameters"], attributes["_buffers"]


def _may_change(attribute: tuple[str, Any]) -> bool:
    """Return whether an option can change without being replaced."""
    name, value = attribute
    if isinstance(value, tuple):
        return any(_may_change(("", item)) for item in cast("tuple[Any, ...]", value))
    return isinstance(value, list | dict | set) and name not in MODULE_ATTRIBUTES


_steppers: WeakKeyDictionary[Cell[Any], _Stepper] = WeakKeyDictionary()
