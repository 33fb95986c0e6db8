"""A kernel of one's own for any pointwise cell: its step traced, differentiated, printed as C++ and compiled.

The whole loop over time runs natively, forwards and backwards, with the products of all steps joined where they can
be. A cell's maths is compiled once for a machine; T, B and H don't matter.
"""

import logging
from typing import Any, cast

import torch
from torch import Tensor, nn

from unrolled.backends.base import Backend
from unrolled.backends.compiled.building import CompilerError
from unrolled.backends.compiled.kernel import Kernel
from unrolled.backends.compiled.operator import KERNELS, recurrence
from unrolled.backends.compiled.reading import NotPointwiseError
from unrolled.backends.compiled.tracing import AFFINE, layout_of, trace
from unrolled.cells.base import AffineCell, Cell, RecurrentNoise
from unrolled.cells.pointwise import PointwiseCell
from unrolled.state import leaves

_logger = logging.getLogger("unrolled")
_MODULE = frozenset(vars(nn.Module())) - {"training"}
_DTYPES = (torch.float32, torch.float64)
_REMEMBERED = 1024  # cells of different maths, options or sizes


class CompiledBackend(Backend):
    """Native loops for every `PointwiseCell` on a CPU, in float32 and float64.

    What it cannot take it refuses: cells with a step of their own, maths that is not elementwise, other devices and
    dtypes, a machine without a C++ compiler or without a place to keep what was compiled.
    """

    name = "compiled"
    reverses = True
    clears_padding = True

    def __init__(self) -> None:
        self._known: dict[Any, Kernel | str] = {}
        self._said: set[str] = set()

    def refuses(self, cell: Cell[Any], inputs: Tensor) -> str | None:
        found = self._look(cell, inputs)
        return found if isinstance(found, str) else None

    def run(
        self, cell: Cell[Any], inputs: Tensor, state: Any, lengths: Tensor | None, reverse: bool = False
    ) -> tuple[Tensor, Any]:
        known = cast(PointwiseCell[Any], cell)
        kernel = self._look(cell, inputs)
        if isinstance(kernel, str):
            raise ValueError(kernel)
        mixed = _autocast_dtype()
        with torch.autocast("cpu", enabled=False):
            outputs, final = _call(kernel, known, inputs, state, lengths, reverse)
        if mixed is not None:  # as torch's own layers
            outputs, final = outputs.to(mixed), [leaf.to(mixed) for leaf in final]
        return outputs, type(state)(*final)

    def _look(self, cell: Cell[Any], inputs: Tensor) -> Kernel | str:
        """The kernel of a cell in its present mode, or why there is none."""
        refusal = _refusal(cell, inputs)
        if refusal is not None:
            return refusal
        known = cast(PointwiseCell[Any], cell)
        key = _fingerprint(known)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[key] = self._make(known, known.weight_ih.dtype)
        return self._known[key]

    def _make(self, cell: PointwiseCell[Any], dtype: torch.dtype) -> Kernel | str:
        try:
            kernel = Kernel(trace(cell, layout_of(cell), dtype), dtype)
        except NotPointwiseError as reason:
            return f"{type(cell).__name__} cannot be compiled: {reason}"
        except CompilerError as reason:
            if str(reason) not in self._said:
                self._said.add(str(reason))
                _logger.warning("unrolled: cells are not compiled and run slower: %s", reason)
            return str(reason)
        return KERNELS.setdefault(kernel.key, kernel)


def _refusal(cell: Cell[Any], inputs: Tensor) -> str | None:
    """What can be seen without looking at the cell's maths."""
    if not isinstance(cell, PointwiseCell):
        return f"only pointwise cells can be compiled, which {type(cell).__name__} is not"
    own = [name for name in ("step", "recur") if name in vars(cell)]
    own += [
        n
        for n, base in (("step", PointwiseCell), ("recur", AffineCell))
        if getattr(type(cell), n) is not getattr(base, n)
    ]
    if own:
        return f"{type(cell).__name__} has a {own[0]} of its own, which may compute anything"
    if len(cell.state_type._fields) == 0:
        return f"{type(cell).__name__} carries no state"
    devices = {inputs.device.type, cell.weight_ih.device.type}
    if devices != {"cpu"}:
        return f"compiled cells run on a CPU, not on {', '.join(sorted(devices - {'cpu'}))}"
    dtypes = {cell.weight_ih.dtype} if _autocast_dtype() is not None else {inputs.dtype, cell.weight_ih.dtype}
    if not dtypes <= set(_DTYPES) or len(dtypes) > 1:
        return f"compiled cells compute in float32 or float64 alone, not in {', '.join(map(str, dtypes))}"
    if torch.compiler.is_exporting():
        return "an exported program must not depend on this machine's compiler"
    return None


def _autocast_dtype() -> torch.dtype | None:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


def _fingerprint(cell: PointwiseCell[Any]) -> tuple[Any, ...]:
    """All that may decide what a cell's `pointwise` does: its class, options and mode, by value where they have one."""
    options = tuple((name, _by_value(value)) for name, value in vars(cell).items() if name not in _MODULE)
    tensors = (*cell.named_parameters(recurse=False), *cell.named_buffers(recurse=False))
    shapes = tuple((name, value.shape) for name, value in tensors if name not in AFFINE)
    children = tuple(_Identity(child) for child in cell.children())
    return type(cell), cell.weight_ih.dtype, options, shapes, children


def _by_value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return (type(value), value)
    if isinstance(value, list | tuple | dict | set):
        return repr(value)
    return _Identity(value)


class _Identity:
    """Equal to itself alone, and keeps what it stands for alive, so that nothing else gets its place in memory."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _call(
    kernel: Kernel,
    cell: PointwiseCell[Any],
    inputs: Tensor,
    state: Any,
    lengths: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, list[Tensor]]:
    layout, dtype = kernel.program.layout, kernel.dtype
    inputs = inputs.to(dtype)
    initial = [leaf.to(dtype) for leaf in leaves(state)]
    noise = cell.noise(inputs.shape[0], like=inputs) or RecurrentNoise(None, None)
    drawn = [mask for mask in (noise.state_mask, *noise.masks) if mask is not None]
    if any(mask.requires_grad for mask in drawn):
        raise ValueError("the compiled backend has no gradients for the masks of a cell's noise; take backend='loop'")
    weights: list[Tensor | None] = [cell.weight_ih, cell.bias_ih]
    if layout.step_masks > 0 or _has_own_projection(cell):
        inputs, weights = cell.project(inputs), [None, None]
    if layout.recurrent > 0:
        weights += [cell.weight_hh if noise.weight_hh is None else noise.weight_hh, cell.bias_hh]
    else:
        weights += [None, None]
    own = None
    if layout.own:
        own = torch.stack([getattr(cell, name).expand(initial[0].shape[1]) for name in layout.own])
    tensors = [inputs, *weights, own, *initial]
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    masks, lasting = list(noise.masks), noise.state_mask
    outputs, _, *final = recurrence(inputs, *weights, initial, own, masks, lasting, lengths, reverse, kernel.key, keep)
    return outputs, final


def _has_own_projection(cell: PointwiseCell[Any]) -> bool:
    own = any(name in vars(cell) for name in ("project", "step_masks"))
    return own or type(cell).project is not PointwiseCell.project
