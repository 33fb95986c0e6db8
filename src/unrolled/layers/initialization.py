"""Initialization of a network's weights."""

from collections.abc import Iterator
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from unrolled.cells.base import Cell

SCHEMES = ("default", "uniform", "normal", "xavier_uniform", "xavier_normal", "kaiming_uniform", "orthogonal")

# Sutskever et al. 2014, "Sequence to Sequence Learning with Neural Networks", section 3.4.
_UNIFORM_BOUND = 0.08


def initialize(module: nn.Module, scheme: str, generator: torch.Generator | None = None) -> None:
    """Initialize the weights of all cells and linear layers within a module.

    A cell's matrices are drawn gate by gate, so that fans and orthogonality refer to one gate. Biases, including the
    forget gate's, embeddings and all other parameters are not changed.

    Schemes:
        default: no change.
        uniform: U(−0.08, 0.08), Sutskever et al. 2014.
        normal: N(0, 1/fan_in), LeCun et al. 1998, "Efficient BackProp", eq. 16.
        xavier_uniform, xavier_normal: variance 2/(fan_in + fan_out), Glorot & Bengio 2010, eq. 12 and 16.
        kaiming_uniform: variance 2/fan_in, He et al. 2015, eq. 10, for ReLU.
        orthogonal: orthogonal recurrent matrices, Saxe et al. 2014; others as with xavier_uniform.

    Args:
        module: a module that contains cells or linear layers.
        scheme: one of `SCHEMES`.
        generator: the random number generator; torch's global generator by default.

    Raises:
        ValueError: an unknown scheme.
    """
    if scheme not in SCHEMES:
        nearest = get_close_matches(scheme, SCHEMES, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown scheme {scheme!r}, did you mean {nearest!r}? There are {', '.join(SCHEMES)}")
    if scheme == "default":
        return
    with torch.no_grad():
        for block, recurrent in _blocks(module):
            _draw(block, scheme, recurrent, generator)


def _blocks(module: nn.Module) -> Iterator[tuple[Tensor, bool]]:
    """Yield the matrices to initialize, one per gate, and whether each is recurrent."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            yield part.weight, False
        elif isinstance(part, Cell):
            for name, parameter in part.named_parameters(recurse=False):
                if parameter.dim() == 2:
                    gates = parameter.shape[0] % part.hidden_size == 0
                    for block in torch.split(parameter, part.hidden_size) if gates else (parameter,):
                        yield block, name.startswith("weight_hh")


def _draw(block: Tensor, scheme: str, recurrent: bool, generator: torch.Generator | None) -> None:
    if scheme == "uniform":
        nn.init.uniform_(block, -_UNIFORM_BOUND, _UNIFORM_BOUND, generator=generator)
    elif scheme == "normal":
        nn.init.normal_(block, 0.0, block.shape[1] ** -0.5, generator=generator)
    elif scheme == "xavier_normal":
        nn.init.xavier_normal_(block, generator=generator)
    elif scheme == "kaiming_uniform":
        nn.init.kaiming_uniform_(block, nonlinearity="relu", generator=generator)
    elif scheme == "orthogonal" and recurrent:
        nn.init.orthogonal_(block, generator=generator)
    else:
        nn.init.xavier_uniform_(block, generator=generator)
