"""Backends: implementations that run a cell over time, and the choice of one."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.backends.base import Backend
from unrolled.backends.compiled import CompiledBackend, uses_bfloat16_products
from unrolled.backends.fused import FusedBackend
from unrolled.backends.loop import LoopBackend
from unrolled.backends.scan import ScanBackend
from unrolled.backends.speeds import SPEEDS
from unrolled.cells.base import Cell
from unrolled.cells.lstm import LSTMCell

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (LoopBackend(), FusedBackend(), CompiledBackend())}

SCAN = ScanBackend()  # chosen for exported programs, never by name

# For any cell and inputs (batch, time, input), the backend that runs the layer.
Substitute = Callable[[Cell[Any], Tensor], Backend]
_SUBSTITUTE: ContextVar[Substitute | None] = ContextVar("substitute", default=None)

# With fewer steps, a call of the compiled kernel costs more than the steps in Python, or in torch's kernel.
_FEWEST_STEPS = 6
_FEWEST_STEPS_BESIDE_FUSED = 16
# Without a measurement: from this number of steps, the fused LSTM, whose threads synchronize at each step, isn't
# faster than the compiled one.
_LONG = 500


class BackendChoice(NamedTuple):
    """The name of a backend and the reason for its choice."""

    backend: str
    reason: str


def check_name(name: str) -> None:
    """Check that a name is "auto" or that of a backend.

    Raises:
        ValueError: another name.
    """
    names = ("auto", *BACKENDS)
    if name not in names:
        nearest = get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown backend {name!r}, did you mean {nearest!r}? There are {', '.join(names)}")


@contextmanager
def substituted(substitute: Substitute) -> Generator[None]:
    """Within this context, torch.export records layers by the backends that a function returns, whatever they ask for.

    An export to another program's operators needs it.
    """
    token = _SUBSTITUTE.set(substitute)
    try:
        yield
    finally:
        _SUBSTITUTE.reset(token)


def backend_for(name: str, cell: Cell[Any], inputs: Tensor, *, ragged: bool = False) -> Backend:
    """Return the backend that `choose` chooses, or that of `substituted`."""
    # Not under torch.compile, which cannot trace a context variable.
    if torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling():
        substitute = _SUBSTITUTE.get()
        if substitute is not None:
            return substitute(cell, inputs)
    chosen = choose(name, cell, inputs, ragged=ragged).backend
    return SCAN if chosen == SCAN.name else BACKENDS[chosen]


def choose(name: str, cell: Cell[Any], inputs: Tensor, *, ragged: bool = False) -> BackendChoice:
    """Choose the backend for a cell and inputs (batch, time, input), and return it with the reason.

    "auto" chooses torch's fused kernel where it supports the cell and its options, the compiled kernel where the cell
    and the machine allow it, and otherwise the loop. On a CPU only the LSTM's fused kernel is fast, and it doesn't
    support padding. Which one of the two is faster for an unpadded LSTM is measured once on each machine for each class
    of calls (`speeds`); with UNROLLED_AUTO=fixed, the compiled kernel runs from 500 steps. For few steps the call of a
    compiled kernel costs more than it saves. With products in bfloat16, the fused LSTM rounds c to bfloat16 at each
    step and the compiled one doesn't. Where torch.export records any number of steps, a scan replaces the loop. A cell
    that is recorded runs in the loop, whatever the name.

    Raises:
        ValueError: an unknown name, or a named backend that cannot run this cell.
    """
    check_name(name)
    if cell.observer is not None:
        return BackendChoice("loop", "the cell is recorded, step by step")
    if name == "auto":
        return _automatic(cell, inputs, ragged)
    refusal = BACKENDS[name].refuses(cell, inputs)
    if refusal is not None:
        raise ValueError(f"the backend {name!r} cannot run this cell: {refusal}; use 'auto' or 'loop'")
    return BackendChoice(name, "requested")


def _automatic(cell: Cell[Any], inputs: Tensor, ragged: bool) -> BackendChoice:
    kind, time = type(cell).__name__, inputs.shape[1]
    if isinstance(time, torch.SymInt) and SCAN.refuses(cell, inputs) is None:
        return BackendChoice(SCAN.name, "one scan for any number of steps")  # in torch's kernels the number is fixed
    unfused = BACKENDS["fused"].refuses(cell, inputs)
    fused = BackendChoice("fused", f"one kernel runs all steps of {kind} with all its options")
    if unfused is None and inputs.device.type != "cpu":
        return fused
    if unfused is None and isinstance(cell, LSTMCell) and not ragged and not uses_bfloat16_products(cell):
        return _faster(cell, inputs, fused)
    fewest = _FEWEST_STEPS if unfused is not None else _FEWEST_STEPS_BESIDE_FUSED
    if time >= fewest:
        uncompiled = BACKENDS["compiled"].refuses(cell, inputs)
    else:  # not earlier: formatting the number would specialize torch.compile on this number of steps
        uncompiled = f"{time} steps are too few for a compiled kernel to be faster, which needs {fewest}"
    if uncompiled is None:
        return BackendChoice("compiled", f"one kernel, compiled for this machine, runs all steps of {kind}")
    return fused if unfused is None else BackendChoice("loop", f"{unfused}; {uncompiled}")


def _faster(cell: LSTMCell, inputs: Tensor, fused: BackendChoice) -> BackendChoice:
    """Return the faster one of two kernels on a CPU, where torch has a fast one."""
    if BACKENDS["compiled"].refuses(cell, inputs) is not None or inputs.shape[1] < _FEWEST_STEPS_BESIDE_FUSED:
        return fused
    rule = "fused" if inputs.shape[1] < _LONG else "compiled"
    return BackendChoice(*SPEEDS.choose(cell, inputs, (BACKENDS["fused"], BACKENDS["compiled"]), rule))
