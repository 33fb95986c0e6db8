"""Hooks and parametrizations of a cell, as pruning, spectral normalization and weight normalization register them.

An unroll doesn't call the cell at each step, so its hooks run once per unroll, around all steps. Weights that a hook or
a parametrization computes are also computed once per unroll.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

C = TypeVar("C", bound=nn.Module)


def has_hooks(module: nn.Module) -> bool:
    """Return whether a module has forward or backward hooks."""
    return _has_hooks(vars(module))


def is_plain(cell: nn.Module) -> bool:
    """Return whether a cell has neither hooks nor parametrizations."""
    found: dict[str, Any] = vars(cell)
    return "parametrizations" not in found["_modules"] and not _has_hooks(found)


def are_untouched(*modules: nn.Module) -> bool:
    """Return whether calls of modules, without gradients, compute the `forward` of their classes and nothing else."""
    for module in modules:
        found: dict[str, Any] = vars(module)
        if found["_forward_hooks"] or found["_forward_pre_hooks"] or "forward" in found:
            return False
    return not _has_global_hooks()


_has_global_hooks: Callable[[], Any] = getattr(nn.modules.module, "_has_any_global_hook", lambda: False)


def _has_hooks(found: Mapping[str, Any]) -> bool:
    if found["_forward_pre_hooks"] or found["_forward_hooks"]:  # every step calls this, so it is written for speed
        return True
    return bool(found["_backward_hooks"] or found["_backward_pre_hooks"])


def own_class(module: nn.Module) -> type[nn.Module]:
    """Return a module's class, without the classes that torch derives from it for parametrizations and sharding."""
    kinds = type(module).__mro__
    if kinds[1].__module__.startswith("torch.distributed.fsdp"):  # fully_shard: [FSDPLSTMCell, FSDPModule, LSTMCell, …]
        kinds = kinds[2:]
    return kinds[1] if "parametrizations" in vars(module)["_modules"] else kinds[0]


def freeze_computed_weights(cell: C) -> C:
    """Return a copy of a cell with the current values of its computed weights; the cell itself if it has none.

    A parametrization recomputes its weight at each access, and spectral normalization changes its own state each time.
    Recomputation in the backward pass must use the weights of the forward pass.
    """
    attributes: dict[str, Any] = vars(cell)
    parametrizations = attributes["_modules"].get("parametrizations")
    if parametrizations is None and not attributes["_forward_pre_hooks"]:
        return cell
    names = [] if parametrizations is None else [name for name, _ in parametrizations.named_children()]
    computed = {name: getattr(cell, name) for name in names}
    computed |= {name: value for name, value in attributes.items() if isinstance(value, Tensor)}
    if not computed or torch.compiler.is_compiling():  # it can't create modules; see `cached_weights`
        return cell
    copy = cast("C", object.__new__(own_class(cell)))
    vars(copy).update((name, value) for name, value in attributes.items() if name not in computed)
    vars(copy)["_modules"] = {n: child for n, child in attributes["_modules"].items() if n != "parametrizations"}
    vars(copy)["_parameters"] = attributes["_parameters"] | computed
    return copy


def cached_weights(cell: nn.Module) -> AbstractContextManager[None]:
    """Return a context within which, under torch.compile, a parametrization computes its weight only once."""
    if torch.compiler.is_compiling() and "parametrizations" in vars(cell)["_modules"]:
        return cast("AbstractContextManager[None]", parametrize.cached())
    return nullcontext()
