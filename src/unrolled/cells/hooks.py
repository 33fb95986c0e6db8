"""Hooks and parametrizations of a cell: what pruning, spectral and weight normalization put on a module.

A pass through a cell doesn't call it once per step, so its hooks run once per pass, around all steps. Weights that a
hook or a parametrization computes are computed once per pass, too.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

C = TypeVar("C", bound=nn.Module)


def hooked(module: nn.Module) -> bool:
    """Whether hooks wait for a call of this module, forwards or backwards."""
    kept: dict[str, Any] = vars(module)
    return bool(
        kept["_forward_pre_hooks"] or kept["_forward_hooks"] or kept["_backward_hooks"] or kept["_backward_pre_hooks"]
    )


def plain(cell: nn.Module) -> bool:
    """Whether a cell has neither hooks nor parametrizations."""
    return "parametrizations" not in vars(cell)["_modules"] and not hooked(cell)


def settled(cell: C) -> C:
    """The cell with each computed weight as it is now; the cell itself where all weights are its parameters.

    A parametrization computes at every look, and the normalization of a spectrum moves on with each. What is computed
    again on the way back must find the weights of the way there.
    """
    kept: dict[str, Any] = vars(cell)
    parametrizations = kept["_modules"].get("parametrizations")
    if parametrizations is None and not kept["_forward_pre_hooks"]:
        return cell
    names = [] if parametrizations is None else [name for name, _ in parametrizations.named_children()]
    computed = {name: getattr(cell, name) for name in names}
    computed |= {name: value for name, value in kept.items() if isinstance(value, Tensor)}
    if not computed or torch.compiler.is_compiling():  # which makes no modules; see `computed_once`
        return cell
    # torch derives a class for the parametrized module alone.
    kind = type(cell) if parametrizations is None else type(cell).__mro__[1]
    twin = object.__new__(kind)
    vars(twin).update((name, value) for name, value in kept.items() if name not in computed)
    vars(twin)["_modules"] = {name: child for name, child in kept["_modules"].items() if name != "parametrizations"}
    vars(twin)["_parameters"] = kept["_parameters"] | computed
    return twin


def computed_once(cell: nn.Module) -> AbstractContextManager[None]:
    """Where torch.compile reads along, a parametrization computes once within this context, and any look gets that."""
    if torch.compiler.is_compiling() and "parametrizations" in vars(cell)["_modules"]:
        return cast("AbstractContextManager[None]", parametrize.cached())
    return nullcontext()
