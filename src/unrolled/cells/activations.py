"""Elementwise activation functions by name, for cells with a choice of activation."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def identity(x: Tensor) -> Tensor:
    """Return the argument: no activation."""
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "softsign": nn.functional.softsign,
    "softplus": nn.functional.softplus,
    "hard_sigmoid": nn.functional.hardsigmoid,  # max(0, min(1, x/6 + 1/2))
    "identity": identity,
    # synonyms that papers use
    "logistic": torch.sigmoid,
    "hard_logistic": nn.functional.hardsigmoid,
}


def activation(name: str, argument: str = "activation") -> Callable[[Tensor], Tensor]:
    """Return the activation function with a given name.

    Args:
        name: one of `ACTIVATIONS`.
        argument: name of the caller's argument, for the error message.

    Raises:
        ValueError: an unknown name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"{argument} is {name!r}, expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
