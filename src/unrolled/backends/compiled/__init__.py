"""Native kernels for pointwise cells: a cell's step is traced, differentiated, translated to C++ and compiled.

The whole loop over time runs in C++, forwards and backwards, with one matrix product for several steps where possible.
A cell's step is compiled once per machine, for any time, batch and hidden size.
"""

import logging
from typing import Any, cast

import torch
from torch import Tensor, nn

from unrolled.backends.base import Backend
from unrolled.backends.compiled.build import CompilerError, supports_bfloat16_products
from unrolled.backends.compiled.derivatives import run_layer
from unrolled.backends.compiled.kernel import Kernel, LayerInputs
from unrolled.backends.compiled.lower import NotPointwiseError
from unrolled.backends.compiled.operator import KERNELS, packed
from unrolled.backends.compiled.tracing import layout_of, own_values, refusal, trace
from unrolled.cells.base import AffineCell, Cell, RecurrentNoise
from unrolled.cells.hooks import own_class
from unrolled.cells.pointwise import PointwiseCell
from unrolled.modes import constant, recording, transforms
from unrolled.sequences import reverse_valid
from unrolled.state import leaves

_logger = logging.getLogger("unrolled")
MODULE_ATTRIBUTES = frozenset(vars(nn.Module())) - {"training"}
_COMPUTED = {torch.float32: torch.float32, torch.float64: torch.float64, torch.bfloat16: torch.float32}
_CACHE_SIZE = 1024  # cached cells, of different classes, options or sizes
_known: dict[Any, Kernel | str] = {}
_logged: set[type[CompilerError]] = set()  # by type: a message may name a file that differs each time


class CompiledBackend(Backend):
    """Native kernels for every `PointwiseCell` on a CPU, in float32 and float64, with optional bfloat16 products.

    Under autocast to bfloat16, for a cell in bfloat16, and if torch.set_float32_matmul_precision is "medium", the
    factors of matrix products are rounded to bfloat16 if the processor has such products. Everything else, including c,
    stays in float32.

    Not supported are cells that override `step`, operations that are not elementwise, other devices and dtypes, and
    machines without a C++ compiler or without a writable cache.
    """

    name = "compiled"
    reverses = True
    clears_padding = True

    def refuses(self, cell: Cell[Any], inputs: Tensor) -> str | None:
        return _find_kernel(cell, inputs)[1]

    def run(
        self, cell: Cell[Any], inputs: Tensor, state: Any, lengths: Tensor | None, reverse: bool, noise: Any
    ) -> tuple[Tensor, Any]:
        found = _find_kernel(cell, inputs)
        if found[1] is not None:
            raise ValueError(found[1])
        known, mixed = cast("PointwiseCell[Any]", cell), _autocast_dtype()
        with torch.autocast("cpu", enabled=False):
            outputs, final = _call(found, known, inputs, state, lengths, reverse, noise or RecurrentNoise(None, None))
        if mixed is not None:  # outputs have the dtype of torch's layers; the state isn't rounded
            return outputs.to(mixed), type(state)(*final)
        ends = (leaf.to(before.dtype) for leaf, before in zip(final, leaves(state), strict=True))
        return outputs.to(known.weight_ih.dtype), type(state)(*ends)


# A kernel's key, the reason if there is none, whether the kernel projects the inputs, names of the cell's parameters.
_Found = tuple[str, str | None, bool, tuple[str, ...]]


def _find_kernel(cell: Cell[Any], inputs: Tensor) -> _Found:
    """Find the kernel of a cell in its present mode, or the reason why there is none."""
    if torch.compiler.is_exporting() or recording():
        kind = "an exported" if torch.compiler.is_exporting() else "a traced"
        return "", f"{kind} program can't depend on this machine's compiler", False, ()
    if transformed := transforms():
        if "jvp" in transformed:
            return "", "compiled cells have no forward-mode derivative", False, ()
        if torch.compiler.is_compiling():
            return "", "torch.compile (2.13) does not support transforms of a compiled cell", False, ()
    return _resolve(cell, inputs.device.type, inputs.dtype, _autocast_dtype())


@constant
def _resolve(cell: Cell[Any], device: str, dtype: torch.dtype, mixed: torch.dtype | None) -> _Found:
    """`_find_kernel` without tensors, so that torch.compile can use its result as a constant."""
    found = _refusal(cell, device, dtype, mixed is not None)
    if found is None:
        known = cast(PointwiseCell[Any], cell)
        bfloat16_products = _uses_bfloat16(known, mixed)
        key = (*_fingerprint(known), bfloat16_products)
        if key not in _known:
            if len(_known) >= _CACHE_SIZE:
                del _known[next(iter(_known))]
            _known[key] = _make(known, _COMPUTED[known.weight_ih.dtype], bfloat16_products)
        kernel = _known[key]
        if isinstance(kernel, Kernel):
            layout = kernel.program.layout
            return kernel.key, None, layout.step_masks == 0 and not _has_own_projection(known), layout.own
        found = kernel
    return "", found, False, ()


def kernel_for(cell: Cell[Any]) -> tuple[Kernel | None, bool]:
    """Return a cell's kernel for steps without noise and autocast, None if there is none; and whether it projects."""
    if not isinstance(cell, AffineCell):
        return None, False
    key, _, projects, _ = _resolve(cell, "cpu", cell.weight_ih.dtype, None)
    kernel = KERNELS.get(key)
    serves = kernel is not None and kernel.dtype == cell.weight_ih.dtype and not kernel.program.layout.noise
    return (kernel, projects) if serves else (None, False)


def uses_bfloat16_products(cell: AffineCell[Any]) -> bool:
    """Return whether a compiled cell's products are in bfloat16: requested, and supported by the processor."""
    return _uses_bfloat16(cell, _autocast_dtype())


def _uses_bfloat16(cell: AffineCell[Any], mixed: torch.dtype | None) -> bool:
    dtype = cell.weight_ih.dtype
    asked = torch.bfloat16 in (mixed, dtype) or torch.get_float32_matmul_precision() == "medium"
    return asked and _COMPUTED.get(dtype) == torch.float32 and _supports_bfloat16()


@constant
def _supports_bfloat16() -> bool:
    return supports_bfloat16_products()


def _make(cell: PointwiseCell[Any], dtype: torch.dtype, bfloat16_products: bool) -> Kernel | str:
    try:
        kernel = Kernel(trace(cell, layout_of(cell), dtype), dtype, bfloat16_products=bfloat16_products)
    except NotPointwiseError as reason:
        return f"{type(cell).__name__} cannot be compiled: {reason}"
    except CompilerError as reason:
        if type(reason) not in _logged:
            _logged.add(type(reason))
            _logger.warning("unrolled: cells are not compiled, and run slower: %s", reason)
        return str(reason)
    return KERNELS.setdefault(kernel.key, kernel)


def _refusal(cell: Cell[Any], device: str, dtype: torch.dtype, mixed: bool) -> str | None:
    """Return why a cell can't be compiled, as far as known without tracing its step; None if nothing is found."""
    if (found := refusal(cell)) is not None:
        return found
    cell = cast("PointwiseCell[Any]", cell)
    devices = {device, cell.weight_ih.device.type} - {"cpu"}
    if devices:
        return f"compiled cells run on a CPU, not on {', '.join(sorted(devices))}"
    dtypes = {cell.weight_ih.dtype} if mixed else {dtype, cell.weight_ih.dtype}
    if not dtypes <= set(_COMPUTED) or len(dtypes) > 1:
        return f"compiled cells support only float32, float64 and bfloat16, not {', '.join(sorted(map(str, dtypes)))}"
    return None


def _autocast_dtype() -> torch.dtype | None:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


def _fingerprint(cell: PointwiseCell[Any]) -> tuple[Any, ...]:
    """Return everything that may affect a cell's `pointwise`: its class, options and mode, by value where possible."""
    kept = vars(cell)  # faster than named_parameters and similar methods, since every pass runs this
    options = tuple((name, _by_value(value)) for name, value in kept.items() if name not in MODULE_ATTRIBUTES)
    tensors = (*kept["_parameters"].items(), *kept["_buffers"].items())
    # The names of weights count, but not their shapes: a kernel serves any input size.
    named = ((name, value) for name, value in tensors if value is not None)
    shapes = tuple((name, None if name.startswith("weight_") else value.shape) for name, value in named)
    children = tuple(_Identity(child) for child in kept["_modules"].values())
    return own_class(cell), cell.weight_ih.dtype, options, shapes, children


def _by_value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return (type(value), value)
    if isinstance(value, list | tuple | dict | set):
        return repr(value)
    return _Identity(value)


class _Identity:
    """A wrapper equal only to itself. It keeps the object alive, so that its id isn't reused."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _call(
    found: _Found,
    cell: PointwiseCell[Any],
    inputs: Tensor,
    state: Any,
    lengths: Tensor | None,
    reverse: bool,
    noise: RecurrentNoise,
) -> tuple[Tensor, list[Tensor]]:
    key, _, projects, names = found
    dtype = _COMPUTED[cell.weight_ih.dtype]
    inputs = inputs.to(cell.weight_ih.dtype)
    initial = [leaf.to(dtype) for leaf in leaves(state)]
    if any(mask.requires_grad for mask in (noise.state_mask, *noise.masks) if mask is not None):
        raise ValueError("the compiled backend has no gradients for the masks of a cell's noise; use backend='loop'")
    turned = reverse and not projects
    if not projects:  # noise that changes at each step is drawn in the order of the steps
        inputs = cell.project(reverse_valid(inputs, lengths) if turned else inputs)
    products: tuple[tuple[Tensor, Tensor | None], ...] = ()
    if cell.has_recurrent_product:
        products = cell.products(cell.recurrent_weight() if noise.weight_hh is None else noise.weight_hh)

    def single(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(dtype)

    weight_hh, bias_hh = products[0] if products else (None, None)
    run = LayerInputs(
        inputs=inputs.to(dtype),
        weight_ih=single(cell.weight_ih) if projects else None,
        bias_ih=single(cell.bias_ih) if projects else None,
        weight_hh=single(weight_hh),
        bias_hh=single(bias_hh),
        further=[
            inputs.new_empty(0, dtype=dtype) if tensor is None else tensor.to(dtype)
            for product in products[1:]
            for tensor in product
        ],
        initial=initial,
        own=single(own_values(cell, names)),
        noise=[mask.to(dtype) for mask in noise.masks],
        state_mask=single(noise.state_mask),
        lengths=lengths,
        reverse=reverse and projects,
    )
    learned, fixed = packed(run)
    outputs, _, *final = run_layer(learned, fixed, run.reverse, key)
    return reverse_valid(outputs, lengths) if turned else outputs, final


def _has_own_projection(cell: PointwiseCell[Any]) -> bool:
    own = any(name in vars(cell) for name in ("project", "step_masks"))
    return own or type(cell).project is not PointwiseCell.project
