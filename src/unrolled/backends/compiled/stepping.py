"""One step of a compiled cell without gradients, on the shortest path to its kernel.

The operator of a whole pass, with its support of derivatives and torch.compile, costs far more than a step of a small
layer. A step calls the kernel directly. It reads the weights where they are, at each call, so that no change of a
weight can be missed. What is remembered of a cell is its kernel, until an attribute of the cell is replaced.
"""

import ctypes
from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from unrolled.backends.compiled import MODULE_ATTRIBUTES, kernel_for
from unrolled.backends.compiled.kernel import Kernel, Layer
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
            self._table = ctypes.c_void_p * layout.states
            self._shapes = [(self._blocks, cell.input_size), (self._blocks,)]
            for inside, outside in sizes:
                self._shapes += (outside * hidden, inside * hidden), (outside * hidden,)
            kind = cast("type[PointwiseCell[Any]]", type(cell))
            self._own_products = bool(layout.fed) and (
                not attributes.keys().isdisjoint(("products", "recurrent_weight"))
                or kind.products is not PointwiseCell.products
                or kind.recurrent_weight is not PointwiseCell.recurrent_weight
            )
            self._work = sum(outside * hidden * inside * hidden for inside, outside in sizes)

    def serves(self, cell: Cell[Any]) -> bool:
        """Return whether the cell is as it was when its kernel was found."""
        attributes, (before, *tables) = vars(cell), self._seen
        try:  # objects are equal to themselves; those that can't be compared were replaced
            same = self._lasting and attributes == before
        except (RuntimeError, TypeError, ValueError):
            return False
        if not same or torch.get_float32_matmul_precision() != self._precision:
            return False
        return _same(attributes["_parameters"], tables[0]) and _same(attributes["_buffers"], tables[1])

    def step(
        self, kernel: Kernel, cell: PointwiseCell[Any], inputs: Tensor, state: Any, projected: bool
    ) -> tuple[Tensor, Any] | None:
        """See `step_compiled`."""
        if not projected and not self._projects:
            inputs, projected = cell.project(inputs), True
        layer, batch, dtype = kernel.begin(), inputs.shape[0], kernel.dtype
        alive = self._set_weights(layer, cell, kernel, projected)
        if alive is None or batch == 0 or type(state) is not cell.state_type:
            return None
        if inputs.layout is not torch.strided:
            return None
        inputs, initial = inputs.contiguous(), [leaf.contiguous() for leaf in state]
        of_inputs, of_state = (batch, self._blocks if projected else cell.input_size), (batch, cell.hidden_size)
        if not _fit([inputs, *initial], [of_inputs, *[of_state] * len(initial)], dtype):
            return None
        output, same = torch.empty_like(initial[0]), kernel.plan.output_field
        final = [output if field == same else torch.empty_like(leaf) for field, leaf in enumerate(initial)]
        before, after = (self._table(*[leaf.data_ptr() for leaf in part]) for part in (initial, final))
        layer.initial, layer.final = ctypes.addressof(before), ctypes.addressof(after)
        layer.inputs, layer.outputs = inputs.data_ptr(), output.data_ptr()
        layer.batch, layer.time, layer.input, layer.hidden = batch, 1, of_inputs[1], of_state[1]
        work = batch * (self._work + (0 if projected else self._blocks * of_inputs[1]))
        layer.threads = min(torch.get_num_threads(), batch, 1 + work // _WORK)
        kernel.infer(layer)
        return output, cell.state_type(*final)

    def _set_weights(self, layer: Layer, cell: PointwiseCell[Any], kernel: Kernel, projected: bool) -> list[Any] | None:
        """Set the addresses of the weights.

        Returns:
            What must stay alive during the call; None if a weight isn't as the kernel needs it.
        """
        parameters: dict[str, Tensor | None] = vars(cell)["_parameters"]
        weights: list[Tensor | None] = []
        weights += (None, None) if projected else (parameters["weight_ih"], parameters["bias_ih"])
        if self._own_products:
            for product in cell.products(cell.recurrent_weight()):
                weights += product
        elif len(self._shapes) > 2:
            weights += parameters["weight_hh"], parameters["bias_hh"]
        if not _fit(weights, self._shapes, kernel.dtype):
            return None
        own = self._own_values(cell, parameters) if self._own else None
        if own is not None:
            if own.numel() != kernel.own * cell.hidden_size or not _fit([own], [own.shape], kernel.dtype):
                return None
            layer.own_values = own.data_ptr()
        for name, weight in zip(_NAMES, weights, strict=False):
            setattr(layer, name, None if weight is None else weight.data_ptr())
        further = weights[4::2], weights[5::2]
        if not further[0]:
            return [weights, own]
        tables = [_addresses(column) for column in further]
        layer.further_weights, layer.further_biases = map(ctypes.addressof, tables)
        return [weights, own, tables]

    def _own_values(self, cell: PointwiseCell[Any], parameters: Mapping[str, Any]) -> Tensor:
        """Return the parameters and buffers that `pointwise` uses one after another, as `own_values` does."""
        found = [parameters[name] if name in parameters else getattr(cell, name) for name in self._own]
        return torch.cat([value.expand(cell.hidden_size) if value.numel() == 1 else value for value in found])


_NAMES = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")


def _fit(tensors: Sequence[Tensor | None], shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> bool:
    """Return whether the kernel can read tensors: their shapes, dtype, device and order in memory."""
    for tensor, shape in zip(tensors, shapes, strict=True):
        if tensor is None:
            continue
        if tensor.shape != shape or tensor.dtype is not dtype or not tensor.is_cpu or type(tensor) not in PLAIN_TENSORS:
            return False
        if tensor.layout is not torch.strided or not tensor.is_contiguous():
            return False
    return True


def _addresses(tensors: Sequence[Tensor | None]) -> Any:
    """Return an array of the addresses of tensors; null for None."""
    return (ctypes.c_void_p * len(tensors))(*[None if tensor is None else tensor.data_ptr() for tensor in tensors])


def _watched(attributes: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return what must stay the same: options, parameters and buffers by name."""
    return attributes, attributes["_parameters"], attributes["_buffers"]


def _same(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    return now.keys() == before.keys() and all(map(is_, now.values(), before.values()))


def _may_change(attribute: tuple[str, Any]) -> bool:
    """Return whether an option can change without being replaced."""
    name, value = attribute
    if isinstance(value, tuple):
        return any(_may_change(("", item)) for item in cast("tuple[Any, ...]", value))
    return isinstance(value, list | dict | set) and name not in MODULE_ATTRIBUTES


_steppers: WeakKeyDictionary[Cell[Any], _Stepper] = WeakKeyDictionary()
