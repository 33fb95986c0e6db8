"""How much of the past a network holds, and how much of it it uses."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unrolled.shapes import ShapeError, expect


def memory_capacity(states: Tensor, inputs: Tensor, *, max_lag: int, ridge: float = 1e-9) -> Tensor:
    """Compute how well the input of k steps ago can be read out linearly from the state.

        MC_k = max_w corr²(u_{t-k}, w · s_t),  MC = Σ_k MC_k

    Jaeger 2001, "Short term memory in echo state networks", GMD report 152, definition 1. For inputs that are drawn
    independently at each step, MC is at most the number of units. The readout is fitted by least squares to the first
    half of the steps, and the correlation is that of the second half, so that units can't fit noise.

    Args:
        states: (batch, time, units), such as `CellRecord["h"]` without padding.
        inputs: (batch, time), a number for each step, drawn independently of the other steps.
        max_lag: the greatest k.
        ridge: weight of the readout's squared norm, relative to the mean square of the states.

    Returns:
        (max_lag + 1,): MC_0 to MC_max_lag, from 0 to 1. MC without the present input is their sum from index 1.

    Raises:
        ShapeError: states or inputs of another shape.
        ValueError: a negative lag, too few steps for the units, values that are not finite.
    """
    expect(states, "batch time units", name="states")
    batch, time, units = states.shape
    expect(inputs, "batch time", batch=batch, time=time, name="inputs")
    half = (time - max_lag) // 2
    if max_lag < 0 or half * batch < 2 * (units + 1):
        raise ValueError(
            f"max_lag={max_lag} with {batch} × {time} steps leaves {max(half, 0) * batch} steps to fit a readout of "
            f"{units} units; give at least {2 * (units + 1)} in each half"
        )
    if not bool(states.isfinite().all() and inputs.isfinite().all()):
        raise ValueError("states or inputs are not finite; leave out the padding")
    centred = states.double() - states.double().mean((0, 1))
    features = torch.cat([centred, torch.ones_like(centred[..., :1])], dim=-1)
    lagged = [inputs.double()[:, max_lag - lag : time - lag] for lag in range(max_lag + 1)]
    targets = torch.stack(lagged, dim=-1)
    features = features[:, max_lag:]
    fitted, held = features[:, :half].flatten(0, 1), features[:, half:].flatten(0, 1)
    gram = fitted.T @ fitted
    penalty = ridge * gram.diagonal()[:-1].mean().clamp(min=torch.finfo(torch.float64).tiny)
    readout = torch.linalg.solve(
        gram + penalty * torch.eye(units + 1, dtype=gram.dtype, device=gram.device),
        fitted.T @ targets[:, :half].flatten(0, 1),
    )
    return _squared_correlation(held @ readout, targets[:, half:].flatten(0, 1)).to(states.dtype)


def _squared_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return the squared correlation of each column; 0 for a constant one."""
    one, other = one - one.mean(0), other - other.mean(0)
    variances = one.square().mean(0) * other.square().mean(0)
    squared = (one * other).mean(0).square() / variances.clamp(min=torch.finfo(one.dtype).tiny)
    return torch.where(variances > 0, squared, 0.0).clamp(max=1.0)


def loss_by_history(
    loss: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor, histories: Sequence[int]
) -> Tensor:
    """Compute the mean loss of a prediction when only the last k inputs are known, for several k.

    Each prediction starts from the initial state, k inputs before. All histories predict the same targets, those with
    at least max(histories) inputs before them, so that the losses can be compared (Khandelwal, He, Qi & Jurafsky 2018,
    "Sharp Nearby, Fuzzy Far Away: How Neural Language Models Use Context", section 3).

    Args:
        loss: given inputs (rows, k, …) and the targets (rows, …) after them, returns the losses (rows,).
        inputs: (batch, time, …), of one length.
        targets: (batch, time, …), what is to be predicted after each input.
        histories: numbers of inputs, from 1 to time.

    Returns:
        (histories,) mean losses.

    Raises:
        ShapeError: targets of another batch or time.
        ValueError: no history, or one outside 1 to time.
    """
    if inputs.dim() < 2 or targets.shape[:2] != inputs.shape[:2]:
        shapes = f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
        raise ShapeError(f"inputs and targets have the shapes {shapes}, expected the same batch and time")
    time, longest = inputs.shape[1], max(histories, default=0)
    if not histories or min(histories) < 1 or longest > time:
        raise ValueError(f"histories are {list(histories)}, expected numbers from 1 to {time}, the time of the inputs")
    wanted = targets[:, longest - 1 :].flatten(0, 1)
    means: list[Tensor] = []
    for history in histories:
        windows = inputs.unfold(1, history, 1)[:, longest - history :]  # (batch, windows, …, history)
        rows = windows.movedim(-1, 2).flatten(0, 1)
        means.append(loss(rows, wanted).mean())
    return torch.stack(means)


def effective_context(losses: Tensor, histories: Sequence[int], *, tolerance: float = 0.01) -> int:
    """Return the shortest history whose loss is at most 1 + tolerance times that of the longest history.

    Khandelwal et al. 2018, section 3, use 1 %.

    Args:
        losses: (histories,), as `loss_by_history` returns them.
        histories: numbers of inputs, in ascending order.
        tolerance: relative increase of the loss that counts as none.

    Raises:
        ValueError: losses and histories of different number, or that don't ascend.
    """
    if len(losses) != len(histories) or list(histories) != sorted(set(histories)) or not histories:
        raise ValueError(f"{len(losses)} losses for histories {list(histories)}, expected one each, ascending")
    enough = losses <= losses[-1] + tolerance * losses[-1].abs()
    return histories[int(enough.int().argmax())]
