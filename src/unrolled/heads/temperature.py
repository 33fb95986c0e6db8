"""Temperatures of logits, and a precision that can be summed."""

import torch
from torch import Tensor


def widened(parameters: Tensor) -> Tensor:
    """Convert parameters to at least float32: a sum of losses in bfloat16 has three digits."""
    return parameters.to(torch.promote_types(parameters.dtype, torch.float32))


def sharpened(logits: Tensor, temperature: float) -> Tensor:
    """Return logits of softmax(logits / temperature); with 0, the maximum gets probability 1."""
    logits, divisor = widened(logits), check_temperature(temperature)
    if temperature == 0.0:
        return torch.full_like(logits, -torch.inf).scatter(-1, logits.argmax(-1, keepdim=True), 0.0)
    if temperature < 1e-6:  # avoids an overflow of the quotient
        logits = logits - logits.amax(-1, keepdim=True)
    return logits / divisor


def sharpened_signs(logits: Tensor, temperature: float) -> Tensor:
    """Return logits of σ(logits / temperature); with 0, the more probable of the two values gets probability 1."""
    logits, divisor = widened(logits), check_temperature(temperature)
    return torch.where(logits > 0, torch.inf, -torch.inf).to(logits) if temperature == 0.0 else logits / divisor


def check_temperature(temperature: float) -> float:
    """Check a temperature, and return it limited to positive finite values of float32.

    Raises:
        ValueError: a negative number, or one that isn't finite.
    """
    if not 0.0 <= temperature < float("inf"):
        raise ValueError(
            f"temperature={temperature}: expected 0 (deterministic) or more; 1 is the model's distribution"
        )
    return min(max(temperature, torch.finfo(torch.float32).tiny), torch.finfo(torch.float32).max)
