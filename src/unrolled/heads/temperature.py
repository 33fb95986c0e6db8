"""Logits at a temperature, and in a precision that can be summed."""

import torch
from torch import Tensor


def widened(parameters: Tensor) -> Tensor:
    """In float32 at least: a sum of losses in bfloat16 has three digits."""
    return parameters.to(torch.promote_types(parameters.dtype, torch.float32))


def sharpened(logits: Tensor, temperature: float) -> Tensor:
    """Logits of softmax(logits / temperature); at 0 the greatest has all the probability."""
    logits, divisor = widened(logits), check_temperature(temperature)
    if temperature == 0.0:
        return torch.full_like(logits, -torch.inf).scatter(-1, logits.argmax(-1, keepdim=True), 0.0)
    if temperature < 1e-6:  # so that no quotient is too large
        logits = logits - logits.amax(-1, keepdim=True)
    return logits / divisor


def sharpened_signs(logits: Tensor, temperature: float) -> Tensor:
    """Logits of σ(logits / temperature); at 0 the likelier answer of each two has all the probability."""
    logits, divisor = widened(logits), check_temperature(temperature)
    return torch.where(logits > 0, torch.inf, -torch.inf).to(logits) if temperature == 0.0 else logits / divisor


def check_temperature(temperature: float) -> float:
    """The temperature as float32 can divide by it, neither 0 nor infinite.

    Raises:
        ValueError: a number below 0, or one that isn't finite.
    """
    if not 0.0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: 0 (no chance) or more; 1 is the model's own distribution")
    return min(max(temperature, torch.finfo(torch.float32).tiny), torch.finfo(torch.float32).max)
