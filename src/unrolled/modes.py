"""What torch is doing with the code that runs: reading it for torch.compile, recording it, transforming it."""

import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

_Function = TypeVar("_Function", bound=Callable[..., Any])


def constant(function: _Function) -> _Function:
    """torch.compiler.assume_constant_result, whose import of torch._dynamo takes a second, without that import.

    Whether a mark still has its effect can't be told before torch._dynamo is there, and then it is reading this code
    already. Without it torch.compile would look into the function, and say what it cannot take there.
    """
    if "torch._dynamo" in sys.modules:
        return torch.compiler.assume_constant_result(function)
    vars(function)["_dynamo_marked_constant"] = True  # a test compares it with what the public function does
    return function


# torch tells nowhere else which of its transforms are at work. Without this torch itself refuses, in its words.
_functorch = getattr(torch._C, "_functorch", None)  # pyright: ignore[reportPrivateUsage]
_innermost: Callable[[], Any] = getattr(_functorch, "peek_interpreter_stack", lambda: None)
_all: Callable[[], Any] = getattr(_functorch, "get_interpreter_stack", lambda: None)
_is_batched: Callable[[Tensor], bool] = getattr(_functorch, "is_legacy_batchedtensor", lambda _: False)
_forward_mode: Any = torch.autograd.forward_ad


@constant
def transforms() -> tuple[str, ...]:
    """The transforms at work: "vmap", "grad" and "jvp", which is forward-mode differentiation by whatever name."""
    forward_mode = getattr(_forward_mode, "_current_level", -1) >= 0
    if not forward_mode and _innermost() is None:  # at once, since every pass asks
        return ()
    names = (str(interpreter.key()).rpartition(".")[2].lower() for interpreter in _all() or ())
    return (*names, "jvp") if forward_mode else tuple(names)


def batched_gradients(tensors: Iterable[Tensor | None]) -> bool:
    """Whether these are many gradients in one, which `torch.autograd.grad` gives with is_grads_batched=True.

    That is another vmap than torch.func's, which operators from outside of torch cannot be told of.
    """
    return any(tensor is not None and _is_batched(tensor) for tensor in tensors)


def recording() -> bool:
    """Whether torch.jit.trace is writing down what runs."""
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def readable(tensor: Tensor) -> bool:
    """Whether the values of a tensor may be looked at here, at no cost and without fixing what runs afterwards."""
    if tensor.device.type != "cpu" or torch.compiler.is_compiling() or recording():
        return False
    return "vmap" not in transforms()
