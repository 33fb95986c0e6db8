"""How a cell's state at one step depends on the state before: Jacobians, their norms and spectral radii."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.cells.base import Cell
from unrolled.shapes import expect
from unrolled.state import leaves, rebuild, select


def state_jacobians(cell: Cell[Any], inputs: Tensor, state: Any = None) -> Tensor:
    """Compute J_t = ∂s_t / ∂s_{t-1} at each step of a sequence.

    s_t are all tensors of the state, concatenated in their order (h and c of an LSTM), without counters. Gradients
    vanish if the norms of the Jacobians stay below 1, and can explode if the spectral radius is above 1 (Pascanu,
    Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", section 2).

    Args:
        cell: any cell. Noise that is drawn once per unroll is left out.
        inputs: (batch, time, input).
        state: the state before the first step; `cell.initial_state` by default.

    Returns:
        (batch, time, size, size), where size is the total number of features of the state.

    Raises:
        ShapeError: inputs of another shape.
    """
    expect(inputs, "batch time input", input=cell.input_size, name="inputs")
    with torch.no_grad():
        state = cell.initial_state(len(inputs), like=inputs) if state is None else state
        projected = cell.project(inputs)
    free = [n not in cell.counters for n in range(len(leaves(state)))]
    size = sum(leaf.shape[1] for leaf, wanted in zip(leaves(state), free, strict=True) if wanted)
    found: list[Tensor] = []
    for now in projected.unbind(1):
        rows = [_jacobian(cell, now[row], select(state, index), free) for row, index in enumerate(_rows(inputs))]
        found.append(torch.stack(rows) if rows else inputs.new_zeros(0, size, size))
        with torch.no_grad():
            state = cell.step(now, state)[1]
    return torch.stack(found, dim=1) if found else inputs.new_zeros(len(inputs), 0, size, size)


def _rows(inputs: Tensor) -> Sequence[Tensor]:
    return torch.arange(len(inputs), device=inputs.device).split(1)


def _jacobian(cell: Cell[Any], projected: Tensor, state: Any, free: Sequence[bool]) -> Tensor:
    """Return the Jacobian (size, size) of a step from a projected input (features,) and a state of one row.

    The step runs with a copy of the row for each number of the next state, so that one backward pass has the gradients
    of all of them.
    """
    wanted = [leaf for leaf, kept in zip(leaves(state), free, strict=True) if kept]
    size = sum(leaf.shape[1] for leaf in wanted)
    with torch.enable_grad():
        flat = torch.cat(wanted, dim=-1).expand(size, size).detach().requires_grad_()
        parts = iter(flat.split([leaf.shape[1] for leaf in wanted], dim=-1))
        copies = (leaf.expand(size, *leaf.shape[1:]) for leaf in leaves(state))
        given = [next(parts) if kept else copy for copy, kept in zip(copies, free, strict=True)]
        before = rebuild(select(state, projected.new_zeros(size, dtype=torch.int64)), given)
        after = leaves(cell.step(projected.expand(size, *projected.shape), before)[1])
        numbers = torch.cat([leaf for leaf, kept in zip(after, free, strict=True) if kept], dim=-1).diagonal().sum()
    if not numbers.requires_grad:
        return torch.zeros_like(flat)
    return torch.autograd.grad(numbers, flat, allow_unused=True, materialize_grads=True)[0]


def spectral_radii(jacobians: Tensor) -> Tensor:
    """Return the largest absolute eigenvalue of each matrix (…, size, size), as (…,)."""
    return torch.linalg.eigvals(jacobians).abs().amax(-1)  # not the norm: matrices needn't be symmetric


def spectral_norms(jacobians: Tensor) -> Tensor:
    """Return the largest singular value of each matrix (…, size, size), as (…,): how much a step can stretch a change.

    It is an upper bound of the spectral radius.
    """
    return torch.linalg.matrix_norm(jacobians, ord=2)


def product_norms(jacobians: Tensor) -> Tensor:
    """Compute ‖∂s_T / ∂s_{T-k}‖, the largest singular value of the product of the last k Jacobians, for each lag k.

    Args:
        jacobians: (batch, time, size, size), J_1 … J_T of a sequence.

    Returns:
        (batch, time + 1), from lag 0, where it is 1, to lag T.

    Raises:
        ShapeError: another shape.
    """
    expect(jacobians, "batch time size size", name="jacobians")
    batch, time, size, _ = jacobians.shape
    product = torch.eye(size, dtype=jacobians.dtype, device=jacobians.device).expand(batch, size, size)
    norms = [spectral_norms(product)]
    for step in reversed(range(time)):
        product = product @ jacobians[:, step]
        norms.append(spectral_norms(product))
    return torch.stack(norms, dim=1)
