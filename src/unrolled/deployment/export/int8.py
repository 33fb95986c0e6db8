"""Weights as 8-bit integers, and what they cost: how far the outputs of a network move."""

from typing import Any

import torch
from torch import Tensor

from unrolled.heads.categorical import CategoricalHead
from unrolled.heads.ctc import CTCHead

ROWS, STEPS = 8, 100  # of the random inputs on which outputs are compared
_LEVELS = 127  # of an 8-bit integer on either side of 0


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 8-bit integers (rows, columns) of a matrix, and the scale of each row: weight ≈ integers × scale."""
    scales = weight.detach().float().abs().amax(1, keepdim=True) / _LEVELS
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    return (weight.detach() / scales).round().to(torch.int8), scales.squeeze(1)


def cost_of(network: Any, exact: Tensor, rounded: Tensor) -> str:
    """Return a sentence on how far outputs (…, parameters) with exact weights and with 8-bit weights are apart.

    Args:
        network: the network, whose head tells whether the outputs are logits of classes.
        exact: its outputs for random inputs of `ROWS` sequences of `STEPS` steps.
        rounded: those with 8-bit weights for the same inputs.
    """
    difference = (exact - rounded).abs()
    text = (
        f"8-bit weights change outputs by {difference.mean():.2g} on average and {difference.max():.2g} at most; their "
        f"deviation is {exact.std():.2g} (random inputs, {ROWS} sequences of {STEPS} steps)"
    )
    if isinstance(getattr(getattr(network, "decoder", network), "head", None), CategoricalHead | CTCHead):
        same = (exact.argmax(-1) == rounded.argmax(-1)).float().mean()
        text += f"; the most probable class is the same in {same:.1%} of the predictions"
    return text
