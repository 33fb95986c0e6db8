"""The product of a cell with its input, apart from what the cell computes of it: any cell may define `project`."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from unrolled.backends.compiled.lower import NotPointwiseError
from unrolled.backends.compiled.program import Program
from unrolled.backends.compiled.tracing import layout_of, trace
from unrolled.cells.pointwise import PointwiseCell


def traced(cell: PointwiseCell[Any]) -> tuple[Program, tuple[Tensor, Tensor]]:
    """Return the program of a cell's step, and the weight and bias of the product with the input that it begins with.

    Raises:
        NotPointwiseError: a projection that is neither affine nor elementwise operations on products.
    """
    layout = layout_of(cell)
    if type(cell).project is PointwiseCell.project:
        return trace(cell, layout, torch.float32), (cell.weight_ih, cell.bias_ih)
    if (affine := _affine(cell)) is not None:
        return trace(cell, layout, torch.float32), affine
    with torch.no_grad(), _Products(cell.weight_ih.new_zeros(1, cell.input_size), None) as found:
        cell.project(found.inputs)
    weights, biases = zip(*found.products, strict=True)
    weight = torch.cat(weights)
    bias = torch.cat([w.new_zeros(len(w)) if b is None else b for w, b in found.products])
    blocks, rest = divmod(len(weight), cell.hidden_size)
    if rest:
        raise NotPointwiseError(f"its products with the input have {len(weight)} rows, not blocks of its units")
    added = () if any(each is cell.bias_ih for each in biases) else ("bias_ih",)
    layout = layout._replace(gates=blocks, step_masks=0, own=(*layout.own, *added))
    unused = torch.zeros(cell.hidden_size + 1, cell.input_size)  # made here, so that it is no part of the trace
    return trace(cell, layout, torch.float32, partial(_projected, unused)), (weight, bias)


def _affine(cell: PointwiseCell[Any]) -> tuple[Tensor, Tensor] | None:
    """Return weight and bias of an affine projection, measured in double precision; None for another one."""
    double = copy.deepcopy(cell).double()
    inputs = torch.linspace(-3.0, 2.0, 2 * cell.input_size, dtype=torch.float64).view(2, cell.input_size)
    with torch.no_grad():
        bias = double.project(torch.zeros_like(inputs[:1]))
        weight = double.project(torch.eye(cell.input_size, dtype=torch.float64)) - bias
        same = torch.allclose(double.project(inputs), inputs @ weight + bias, rtol=1e-9, atol=1e-9)
    return (weight.T.float(), bias[0].float()) if same else None


def _projected(inputs: Tensor, cell: PointwiseCell[Any], blocks: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Compute `project` with given blocks in place of its products."""
    with _Products(inputs, blocks):
        return cell.project(inputs).split(cell.hidden_size, dim=-1)


def _weights(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Return the weights of a call of torch.nn.functional.linear."""
    return weight, bias


class _Products(TorchFunctionMode):
    """Collects the products of an input with weights, and replaces their results, block by block, if they are given."""

    def __init__(self, inputs: Tensor, blocks: Sequence[Tensor] | None) -> None:
        super().__init__()
        self.inputs = inputs
        self.products: list[tuple[Tensor, Tensor | None]] = []
        self._blocks = None if blocks is None else list(blocks)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is linear and args[0] is self.inputs:
            self.products.append(_weights(*args, **given))
            if self._blocks is not None:
                count = len(self.products[-1][0]) // self._blocks[0].shape[-1]
                taken, self._blocks = self._blocks[:count], self._blocks[count:]
                return torch.cat(taken, dim=-1)
            return func(*args, **given)
        found = func(*args, **given)
        if isinstance(found, Tensor) and any(each is self.inputs for each in (*args, *given.values())):
            raise NotPointwiseError(
                "its projection is neither affine nor made of torch.nn.functional.linear(inputs, …)"
            )
        return found
