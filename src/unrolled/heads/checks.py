"""Checks of heads' arguments."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unrolled.modes import readable
from unrolled.shapes import ShapeError, expect


def check_sizes(**sizes: int) -> None:
    """Check that sizes, passed by name, are 1 or more.

    Raises:
        ValueError: a size below one.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}, expected 1 or more")


def check_mask(mask: Tensor, shape: torch.Size) -> None:
    """Check the shape and the dtype of a mask.

    Raises:
        ShapeError: another shape.
        ValueError: another dtype.
    """
    expect(mask, "...", name="mask")
    if mask.shape != shape:
        raise ShapeError(f"mask has the shape {tuple(mask.shape)}, expected {tuple(shape)}")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask is {mask.dtype}, expected torch.bool: true where a prediction counts")


def check_shares(targets: Tensor) -> None:
    """Check that targets are from 0 to 1. They are read only on the CPU and outside of compiled programs.

    Raises:
        ValueError: targets outside [0, 1], or NaN.
    """
    if targets.numel() == 0 or not readable(targets):
        return
    least, greatest = (float(extreme) for extreme in targets.detach().aminmax())
    if not 0.0 <= least <= greatest <= 1.0:
        raise ValueError(f"targets go from {least:g} to {greatest:g}, expected 0 to 1; mask missing targets")


def checked_smoothing(label_smoothing: float) -> float:
    """Check a label smoothing and return it.

    Raises:
        ValueError: a value outside [0, 1).
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing is {label_smoothing}, expected a share in [0, 1)")
    return label_smoothing


def checked_weights(weights: Sequence[float] | None, number: int) -> Tensor | None:
    """Check class weights and return them as a tensor.

    Raises:
        ValueError: another number of weights, or weights that are negative or not finite.
    """
    if weights is None:
        return None
    if len(weights) != number or not all(0.0 <= weight < float("inf") for weight in weights):
        raise ValueError(f"class_weights={list(weights)}: {number} finite numbers, 0 or more, or none at all")
    return torch.tensor(weights, dtype=torch.get_default_dtype())
