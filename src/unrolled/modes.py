"""Detection of torch's execution modes: torch.compile, torch.jit.trace, and the transforms of torch.func."""

import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

_Function = TypeVar("_Function", bound=Callable[..., Any])


def constant(function: _Function) -> _Function:
    """Mark a function as torch.compiler.assume_constant_result does, without importing torch._dynamo.

    That import takes a second. The mark is an attribute that torch._dynamo reads. Should a later version ignore it,
    torch.compile traces into the function and reports what it doesn't support there.
    """
    if "torch._dynamo" in sys.modules:
        return torch.compiler.assume_constant_result(function)
    vars(function)["_dynamo_marked_constant"] = True  # a test compares it with what the public function does
    return function


# torch has no public interface that lists the active transforms. Where these names are missing, no transform is
# detected, and torch itself raises an error.
_core: Any = torch._C  # pyright: ignore[reportPrivateUsage]
_functorch = getattr(_core, "_functorch", None)
_innermost: Callable[[], Any] = getattr(_functorch, "peek_interpreter_stack", lambda: None)
_all: Callable[[], Any] = getattr(_functorch, "get_interpreter_stack", lambda: None)
_is_batched: Callable[[Tensor], bool] = getattr(_functorch, "is_legacy_batchedtensor", lambda _: False)
_hooks: Callable[[bool], Any] = getattr(_core._autograd, "_top_saved_tensors_default_hooks", lambda _: None)
_dispatch_modes: Callable[[], int] = getattr(_core, "_len_torch_dispatch_stack", lambda: 0)
_forward_mode: Any = torch.autograd.forward_ad
_grad_enabled, _compiling = torch.is_grad_enabled, torch.compiler.is_compiling
_tracing: Callable[[], bool] = getattr(_core, "_is_tracing", torch.jit.is_tracing)  # pyright: ignore[reportPrivateImportUsage]


def _autocast() -> bool:
    """Return whether autocast is enabled on any kind of device that a step may run on."""
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


_any_autocast: Callable[[], bool] = getattr(_core, "_is_any_autocast_enabled", _autocast)


# Subclasses, such as the tensors of FSDP, need not have their numbers in memory.
PLAIN_TENSORS = (Tensor, torch.nn.Parameter)


@constant
def transforms() -> tuple[str, ...]:
    """Return the active transforms: "vmap", "grad" and "jvp". Any forward-mode differentiation counts as "jvp"."""
    forward_mode = getattr(_forward_mode, "_current_level", -1) >= 0
    if not forward_mode and _innermost() is None:  # the fast path, since every pass calls this function
        return ()
    names = (str(interpreter.key()).rpartition(".")[2].lower() for interpreter in _all() or ())
    return (*names, "jvp") if forward_mode else tuple(names)


def batched_gradients(tensors: Iterable[Tensor | None]) -> bool:
    """Return whether any tensor holds batched gradients, as `torch.autograd.grad` makes with is_grads_batched=True.

    They use an older vmap than torch.func's, for which custom operators can't register a rule.
    """
    return any(tensor is not None and _is_batched(tensor) for tensor in tensors)


def observed() -> bool:
    """Return whether hooks of saved tensors, as those of torch.utils.checkpoint, or a dispatch mode see what runs."""
    return bool(_hooks(True)) or _dispatch_modes() > 0


def direct() -> bool:
    """Return whether nothing but the result of a computation counts: no gradients, no mode that sees what runs."""
    return not (  # every step calls this, so it is written for speed; torch.compile must not get past the second line
        _grad_enabled()
        or _compiling()
        or _any_autocast()
        or _tracing()
        or _innermost() is not None
        or _dispatch_modes() > 0
        or getattr(_forward_mode, "_current_level", -1) >= 0
    )


def recording() -> bool:
    """Return whether torch.jit.trace is recording."""
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def readable(tensor: Tensor) -> bool:
    """Return whether Python can read a tensor's values without synchronization and without specializing a graph."""
    if tensor.device.type != "cpu" or torch.compiler.is_compiling() or recording():
        return False
    return "vmap" not in transforms()


_backward_pass: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)  # pyright: ignore[reportPrivateUsage]


def in_backward_pass() -> bool:
    """Return whether a backward pass calls the code, as it does to compute values again that weren't stored."""
    return _backward_pass() != -1
