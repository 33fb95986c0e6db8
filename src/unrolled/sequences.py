"""Padded batches: masks, lengths, reversal and last steps of sequences of unequal length.

A batch of sequences is a tensor (batch, time, ...). Each sequence starts at step 0, and padding follows its last step.
The values of the padding never affect a result.
"""

import torch
from torch import Tensor

from unrolled.modes import readable
from unrolled.shapes import expect


def all_full(lengths: Tensor, batch: int, time: int) -> bool:
    """Check lengths (batch,), and return whether they are known to leave no padding.

    The values are read only on the CPU, where reading is free, and not in a compiled or traced program or under vmap.
    Elsewhere their range is not checked and the result is False.

    Raises:
        ShapeError: lengths of another shape.
        ValueError: lengths that are not integers from 0 to time.
    """
    expect(lengths, "batch", batch=batch, name="lengths")
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise ValueError(f"lengths are {lengths.dtype}, expected integers")
    if batch == 0 or not readable(lengths):
        return False
    shortest, longest = (int(extreme) for extreme in lengths.long().aminmax())  # aminmax lacks some unsigned types
    if shortest < 0 or longest > time:
        raise ValueError(f"lengths go from {shortest} to {longest}, expected 0 to {time}, the time of the inputs")
    return shortest == time


def mask_from_lengths(lengths: Tensor, time: int) -> Tensor:
    """Return a mask (batch, time), true where a step is valid, from lengths (batch,)."""
    expect(lengths, "batch", name="lengths")
    return torch.arange(time, device=lengths.device) < lengths.long().unsqueeze(1)


def lengths_from_mask(mask: Tensor) -> Tensor:
    """Return lengths (batch,) from a mask (batch, time): the inverse of `mask_from_lengths`. It synchronizes with CUDA.

    Raises:
        ValueError: a row whose valid steps are not its first ones.
    """
    expect(mask, "batch time", name="mask")
    mask = mask.bool()
    lengths = mask.sum(dim=1)
    broken = (mask != mask_from_lengths(lengths, mask.shape[1])).any(dim=1)
    if broken.any():
        row = int(broken.int().argmax())
        raise ValueError(f"row {row} of the mask has a gap: valid steps must come first, padding after them")
    return lengths


def reverse_valid(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse the valid steps of each row of (batch, time, ...) and leave the padding in place.

    The function is its own inverse. Without lengths the whole time axis is reversed.
    """
    if lengths is None:
        return values.flip(1)
    batch, time = values.shape[:2]
    expect(lengths, "batch", batch=batch, name="lengths")
    steps = torch.arange(time, device=values.device)
    ends = lengths.to(values.device, torch.int64).unsqueeze(1)
    source = torch.where(steps < ends, ends - 1 - steps, steps)
    return values.gather(1, source.view(batch, time, *[1] * (values.dim() - 2)).expand_as(values))


def last_valid(values: Tensor, lengths: Tensor, initial: Tensor) -> Tensor:
    """Return the last valid step of each row of (batch, time, features), or the row of `initial` if its length is 0.

    Args:
        values: (batch, time, features).
        lengths: (batch,), on any device.
        initial: (batch, features).
    """
    expect(values, "batch time features", name="values")
    batch, time, features = values.shape
    expect(lengths, "batch", batch=batch, name="lengths")
    expect(initial, "batch features", batch=batch, features=features, name="initial")
    if time == 0:
        return initial
    lengths = lengths.to(values.device, torch.int64)
    last = (lengths - 1).clamp(min=0).view(batch, 1, 1).expand(batch, 1, features)
    return torch.where(lengths.unsqueeze(1) == 0, initial, values.gather(1, last).squeeze(1))


def at_steps(values: Tensor, steps: Tensor) -> Tensor:
    """Return given steps of each row, (batch, count, ...).

    Unlike `take_along_dim`, it keeps the sizes of exported programs variable.

    Args:
        values: (batch, time, ...).
        steps: (batch, count) int64, from 0 to time − 1.
    """
    batch, _, *further = values.shape
    expect(steps, "batch count", batch=batch, name="steps")
    index = steps.view(*steps.shape, *[1] * len(further)).expand(-1, -1, *further)
    return values.gather(1, index)
