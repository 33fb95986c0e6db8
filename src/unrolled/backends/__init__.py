"""Ways to run a cell through time, and the choice between them."""

from difflib import get_close_matches
from typing import Any, NamedTuple

from torch import Tensor

from unrolled.backends.base import Backend
from unrolled.backends.compiled import CompiledBackend, multiplies_in_half
from unrolled.backends.fused import FusedBackend
from unrolled.backends.loop import LoopBackend
from unrolled.cells.base import Cell
from unrolled.cells.lstm import LSTMCell

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (LoopBackend(), FusedBackend(), CompiledBackend())}

# Below, a call of the compiled kernel costs more than the steps in Python, or in torch's kernel.
_FEWEST_STEPS = 6
_FEWEST_STEPS_BESIDE_FUSED = 16
# From here on the fused LSTM, whose threads wait for one another at each step, is no faster than the compiled one.
_LONG = 500


class BackendChoice(NamedTuple):
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


def choose(name: str, cell: Cell[Any], inputs: Tensor, *, ragged: bool = False) -> BackendChoice:
    """The backend for a cell on inputs (batch, time, input), which may be ragged, with the reason.

    "auto" takes torch's fused kernel where it computes what the cell says, the compiled one where cell and machine
    allow it, and the loop for the rest. Where several could, benchmarks/recurrent.py has decided: on a CPU only the
    LSTM's fused kernel is fast, and it knows no padding; a few steps are over before a compiled kernel has begun; over
    many steps the compiled LSTM is faster on several threads. Where products are in bfloat16, the fused LSTM rounds c
    to it at each step, and the compiled one doesn't.

    Raises:
        ValueError: an unknown name, or a named backend that cannot run this cell.
    """
    check_name(name)
    if name == "auto":
        return _automatic(cell, inputs, ragged)
    refusal = BACKENDS[name].refuses(cell, inputs)
    if refusal is not None:
        raise ValueError(f"the backend {name!r} cannot run this cell: {refusal}; take 'auto' or 'loop'")
    return BackendChoice(name, "asked for")


def _automatic(cell: Cell[Any], inputs: Tensor, ragged: bool) -> BackendChoice:
    kind, time = type(cell).__name__, inputs.shape[1]
    unfused = BACKENDS["fused"].refuses(cell, inputs)
    fused = BackendChoice("fused", f"one kernel for all steps of {kind}, with all options that it has")
    if unfused is None and (inputs.device.type != "cpu" or _fused_is_fast(cell, time, ragged)):
        return fused
    fewest = _FEWEST_STEPS if unfused is not None else _FEWEST_STEPS_BESIDE_FUSED
    if time >= fewest:
        uncompiled = BACKENDS["compiled"].refuses(cell, inputs)
    else:  # not before: to print it would tie torch.compile to this number of steps
        uncompiled = f"{time} steps are too few to gain from a compiled kernel, which wants {fewest}"
    if uncompiled is None:
        return BackendChoice("compiled", f"the maths of {kind} compiled for this machine, over all steps")
    return fused if unfused is None else BackendChoice("loop", f"{unfused}; {uncompiled}")


def _fused_is_fast(cell: Cell[Any], time: int, ragged: bool) -> bool:
    """Whether torch's kernel is fast for this cell on a CPU."""
    return isinstance(cell, LSTMCell) and not ragged and time < _LONG and not multiplies_in_half(cell)
