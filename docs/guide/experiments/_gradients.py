"""The gradient of a loss with respect to the state after each step."""

from typing import Any

import torch
from torch import Tensor

from unrolled import Cell
from unrolled.state import leaves, rebuild


def state_gradients(cell: Cell[Any], inputs: Tensor) -> list[float]:
    """Return ‖∂L/∂state_t‖ by lag T − t = 1, 2, …: the mean over the batch, for L = a random direction · output_T.

    The gradient with respect to the output at T has norm 1. An LSTM
    has two tensors in its state, h and c; the norm is that of both.
    """
    batch, time, _ = inputs.shape
    state = cell.initial_state(batch, like=inputs)
    states = []
    projected = cell.project(inputs)
    for step in range(time):
        tensors = [leaf.detach().requires_grad_() if step == 0 else leaf for leaf in leaves(state)]
        state = rebuild(state, tensors)
        states.append(tensors)
        output, state = cell.step(projected[:, step], state)
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    loss = (output * torch.nn.functional.normalize(direction, dim=-1)).sum()
    flat = [leaf for tensors in states for leaf in tensors]
    found = torch.autograd.grad(loss, flat)
    width = len(states[0])
    norms = [
        torch.cat(found[step * width : (step + 1) * width], dim=-1).norm(dim=-1).mean().item() for step in range(time)
    ]
    return norms[::-1]
