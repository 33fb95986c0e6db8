"""Ways to run a cell through time, and the choice between them."""

from difflib import get_close_matches
from typing import Any, NamedTuple

from torch import Tensor

from unrolled.backends.base import Backend
from unrolled.backends.compiled import CompiledBackend
from unrolled.backends.fused import FusedBackend
from unrolled.backends.loop import LoopBackend
from unrolled.cells.base import Cell
from unrolled.cells.lstm import LSTMCell

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (LoopBackend(), FusedBackend(), CompiledBackend())}


class Choice(NamedTuple):
    """A backend's name, and why it was taken."""

    backend: str
    reason: str


def check_name(name: str) -> None:
    """Take "auto" and the names of backends.

    Raises:
        ValueError: any other name.
    """
    names = ("auto", *BACKENDS)
    if name not in names:
        nearest = get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown backend {name!r}, did you mean {nearest!r}? There are {', '.join(names)}")


def choose(name: str, cell: Cell[Any], inputs: Tensor) -> Choice:
    """The backend for a cell on inputs (batch, time, input), with the reason.

    "auto" takes torch's fused kernel where it computes what the cell says, but on a CPU only for an LSTM, which alone
    has a fast one there; else the compiled kernel, where cell and machine allow it; else the loop.

    Raises:
        ValueError: an unknown name, or a named backend that cannot run this cell.
    """
    check_name(name)
    if name == "auto":
        return _automatic(cell, inputs)
    refusal = BACKENDS[name].refuses(cell, inputs)
    if refusal is not None:
        raise ValueError(f"the backend {name!r} cannot run this cell: {refusal}; take 'auto' or 'loop'")
    return Choice(name, "asked for")


def _automatic(cell: Cell[Any], inputs: Tensor) -> Choice:
    kind = type(cell).__name__
    unfused = BACKENDS["fused"].refuses(cell, inputs)
    fused = Choice("fused", f"one kernel for all steps of {kind}, with all options that it has")
    if unfused is None and (isinstance(cell, LSTMCell) or inputs.device.type != "cpu"):
        return fused
    uncompiled = BACKENDS["compiled"].refuses(cell, inputs)
    if uncompiled is None:
        return Choice("compiled", f"the maths of {kind} compiled for this machine, over all steps")
    return fused if unfused is None else Choice("loop", f"{unfused}; {uncompiled}")
