"""How a cell's state at one step depends on the state before: Jacobians, their norms and spectral radii."""

from typing import Any

import torch
from torch import Tensor

from unrolled.cells.base import Cell
from unrolled.shapes import expect
from unrolled.state import detach, leaves, rebuild


def state_jacobians(cell: Cell[Any], inputs: Tensor, state: Any = None) -> Tensor:
    """Compute J_t = ∂s_t / ∂s_{t-1} at each step of a sequence.

    s_t are all tensors of the state, concatenated in their order (h and c of an LSTM), without counters. Gradients
    vanish if the norms of the Jacobians stay below 1, and can explode if the spectral radius is above 1 (Pascanu,
    Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", section 2).

    Args:
        cell: any cell, usually in evaluation mode.
        inputs: (batch, time, input).
        state: the state before the first step; `cell.initial_state` by default.

    Returns:
        (batch, time, size, size), where size is the total number of features of the state.

    Raises:
        ShapeError: inputs of another shape.
    """
    expect(inputs, "batch time input", input=cell.input_size, name="inputs")
    batch = inputs.shape[0]
    with torch.no_grad():
        state = cell.initial_state(batch, like=inputs) if state is None else state
        noise = cell.noise(batch, like=inputs)
        projected = cell.project(inputs)
    free = [n not in cell.counters for n in range(len(leaves(state)))]
    sizes = [leaf.shape[1] for leaf, wanted in zip(leaves(state), free, strict=True) if wanted]

    def advance(now: Tensor, before: Any, flat: Tensor) -> Any:
        parts = iter(flat.split(sizes, dim=-1))
        given = [next(parts) if wanted else leaf for leaf, wanted in zip(leaves(before), free, strict=True)]
        return cell.step(now, rebuild(before, given), noise)[1]

    found: list[Tensor] = []
    for now in projected.unbind(1):
        with torch.enable_grad():
            flat = _flat(state, free).detach().requires_grad_()
            after = advance(now, state, flat)
        # The rows of a batch don't depend on each other, so the gradient of their sum has that of each.
        rows = [_gradient(one, flat) for one in _flat(after, free).sum(0)]
        found.append(torch.stack(rows, dim=1))
        state = detach(after)
    return torch.stack(found, dim=1) if found else inputs.new_zeros(batch, 0, sum(sizes), sum(sizes))


def _flat(state: Any, free: list[bool]) -> Tensor:
    return torch.cat([leaf for leaf, wanted in zip(leaves(state), free, strict=True) if wanted], dim=-1)


def _gradient(output: Tensor, point: Tensor) -> Tensor:
    if not output.requires_grad:
        return torch.zeros_like(point)
    return torch.autograd.grad(output, point, retain_graph=True, allow_unused=True, materialize_grads=True)[0]


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
