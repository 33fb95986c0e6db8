"""The compiled step of a cell and the compiled loop over time, callable with tensors.

The C++ side uses raw pointers, so dtype, shape, device and contiguity of every tensor are checked here.
"""

import ctypes
import hashlib
import struct
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.backends.compiled.build import load
from unrolled.backends.compiled.codegen import source
from unrolled.backends.compiled.plan import Plan, plan
from unrolled.backends.compiled.program import Program

_NUMBERS = [
    "batch",
    "time",
    "input",
    "hidden",
    "reverse",
    "threads",
    "projected",
    "recurrent",
    "fed",
    "states",
    "saved",
    "own",
    "noise",
    "apart",
    "further",
    "entering",
    "leaving",
    "output_field",
]
_POINTERS = [
    "fed_fields",
    "fed_saved",
    "gradient_sources",
    "further_inside",
    "further_outside",
    "further_saved",
    "lengths",
    "pointwise",
    "inputs",
    "weight_ih",
    "bias_ih",
    "weight_hh",
    "bias_hh",
    "further_weights",
    "further_biases",
    "initial",
    "state_mask",
    "noises",
    "own_values",
    "outputs",
    "saved_values",
    "final",
    "output_gradient",
    "final_gradient",
    "projected_gradient",
    "apart_gradient",
    "input_gradient",
    "weight_ih_gradient",
    "bias_ih_gradient",
    "weight_hh_gradient",
    "bias_hh_gradient",
    "further_weight_gradients",
    "further_bias_gradients",
    "initial_gradient",
    "own_gradient",
]


_NO_MEMORY = 1  # as in engine.cpp


class Layer(ctypes.Structure):
    """`Layer` of engine.cpp."""

    _fields_ = [(name, ctypes.c_int64) for name in _NUMBERS] + [(name, ctypes.c_void_p) for name in _POINTERS]


class LayerInputs(NamedTuple):
    """The arguments of a layer with H hidden units, P projected and R recurrent blocks, and K blocks in the product.

    A bias that is None or has no elements is not added.

    inputs: (batch, time, input), or (batch, time, P × H) without weight_ih.
    weight_ih, bias_ih: (P × H, input), (P × H); or None.
    weight_hh, bias_hh: (R × H, K × H), (R × H); or None.
    initial: (batch, H) for each field of the state.
    further: for each further product, a weight (out × H, in × H) and a bias (out × H).
    own: (own, H).
    noise: (batch, H) each.
    state_mask: (batch, K × H), or None.
    lengths: (batch,) int64, or None.
    """

    inputs: Tensor
    weight_ih: Tensor | None
    bias_ih: Tensor | None
    weight_hh: Tensor | None
    bias_hh: Tensor | None
    further: Sequence[Tensor]
    initial: Sequence[Tensor]
    own: Tensor | None
    noise: Sequence[Tensor]
    state_mask: Tensor | None
    lengths: Tensor | None
    reverse: bool


class Kernel:
    """The compiled layer of a program in one dtype.

    Args:
        program: the program of one step.
        dtype: dtype of all tensors, float32 or float64.
        bfloat16_products: whether the factors of products are rounded to bfloat16; only for float32, on a processor
            that supports it.

    Raises:
        CompilerError: the library can't be compiled on this machine.
    """

    def __init__(self, program: Program, dtype: torch.dtype, *, bfloat16_products: bool = False) -> None:
        self.program = program
        self.plan: Plan = plan(program)
        self.dtype = dtype
        self.bfloat16_products = bfloat16_products
        self.own = len(program.gradients["own"])  # blocks
        text = source(program, self.plan)
        self.key = hashlib.sha256(f"{dtype} {bfloat16_products} {program.layout} {text}".encode()).hexdigest()[:32]
        engine, lanes = _engine(dtype, bfloat16_products), load("cell", text, dtype)
        self._forward, self._backward, self._step = engine.forward, engine.backward, engine.step
        layout = program.layout
        number = 5 + 5 + layout.states + 2 * len(layout.further) + self.own + 1 + layout.states
        self._call_of_step = struct.Struct(f"{number}q")
        self._fixed = self._fix()
        self._steps = {name: self._parts(lanes, name) for name in _FUNCTIONS}
        self._inferring = _Call(self._fixed)
        self._inferring.set(pointwise=self._steps["infer"])
        self._inferring_at = ctypes.addressof(self._inferring.layer)

    def forward(self, run: LayerInputs, *, keep: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the outputs (batch, time, H), the saved values, and the state after each row's last step."""
        batch, time, hidden = self._check(run)
        outputs = run.inputs.new_empty(batch, time, hidden)
        saved = run.inputs.new_empty(batch, time, len(self.plan.saved) * hidden if keep else 0)
        final = [torch.empty_like(leaf, memory_format=torch.contiguous_format) for leaf in run.initial]
        if batch == 0:
            return outputs, saved, final
        layer = self._layer(run)
        layer.set(outputs=outputs, final=final, pointwise=self._steps["keep" if keep else "infer"])
        if keep:
            layer.set(saved_values=saved)
        _call(self._forward, layer.layer)
        return outputs, saved, final

    def step(self, batch: int, width: int, hidden: int, threads: int, tensors: Sequence[int]) -> None:
        """Run one step without gradients on tensors that the caller has checked.

        Args:
            batch: number of rows.
            width: number of input features.
            hidden: number of hidden units.
            threads: number of threads.
            tensors: the addresses of tensors, in the order of `step` of engine.cpp; 0 for none.

        Raises:
            MemoryError: see `forward`.
        """
        failure = self._step(self._call_of_step.pack(self._inferring_at, batch, width, hidden, threads, *tensors))
        if failure:
            raise _failed(failure, (batch, 1, width, hidden))

    def backward(
        self,
        run: LayerInputs,
        outputs: Tensor,
        saved: Tensor,
        output_gradient: Tensor | None,
        final_gradients: Sequence[Tensor],
        *,
        want_inputs: bool,
        want_weights: bool,
    ) -> dict[str, Any]:
        """Return gradients by the names of `LayerInputs`'s fields, for a forward pass called with `keep`."""
        batch, time, hidden = self._check(run)
        self._expect("outputs", outputs, (batch, time, hidden))
        self._expect("saved", saved, (batch, time, len(self.plan.saved) * hidden))
        if output_gradient is not None:
            self._expect("the gradient of the outputs", output_gradient, (batch, time, hidden))
        for gradient in final_gradients:
            self._expect("the gradient of a state", gradient, (batch, hidden))
        new = run.inputs.new_empty if batch > 0 else run.inputs.new_zeros
        layout = self.program.layout
        projected = new(batch, time, layout.projected * hidden)
        found: dict[str, Any] = {"initial": [new(batch, hidden) for _ in run.initial]}
        found["own"] = new(self.own, hidden)
        if run.weight_ih is None or run.bias_ih is None:
            found["inputs"] = projected
        else:
            if want_inputs:
                found["inputs"] = new(run.inputs.shape)
            if want_weights:
                found |= {"weight_ih": new(run.weight_ih.shape), "bias_ih": new(run.bias_ih.shape)}
        if want_weights and run.weight_hh is not None:
            found["weight_hh"] = new(run.weight_hh.shape)
            found |= {} if run.bias_hh is None else {"bias_hh": new(run.bias_hh.shape)}
            found["further"] = [new(tensor.shape) for tensor in run.further]
        if batch == 0:
            return found
        layer = self._layer(run)
        layer.set(outputs=outputs, saved_values=saved, output_gradient=output_gradient)
        layer.set(final_gradient=list(final_gradients), projected_gradient=projected)
        layer.set(apart_gradient=new(batch, time, len(self.plan.apart) * hidden), pointwise=self._steps["back"])
        layer.set(input_gradient=found.get("inputs") if run.weight_ih is not None else None)
        layer.set(**{f"{name}_gradient": found.get(name) for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")})
        further = found.get("further", [])
        layer.set(further_weight_gradients=further[::2], further_bias_gradients=further[1::2])
        layer.set(initial_gradient=found["initial"], own_gradient=found["own"])
        _call(self._backward, layer.layer)
        return found

    def _parts(self, lanes: ctypes.CDLL, name: str) -> Any:
        """Return an array of the addresses of a function's parts."""
        count = 1 + len(self.program.layout.further)
        parts = (ctypes.cast(getattr(lanes, f"{name}_{part}"), ctypes.c_void_p) for part in range(count))
        return (ctypes.c_void_p * count)(*parts)

    def _layer(self, run: LayerInputs) -> "_Call":
        batch, time, width = run.inputs.shape
        layer = _Call(self._fixed)
        layer.set(batch=batch, time=time, input=width, hidden=run.initial[0].shape[1], reverse=int(run.reverse))
        layer.set(threads=max(1, min(torch.get_num_threads(), batch)))
        layer.set(lengths=run.lengths, inputs=run.inputs, initial=list(run.initial), noises=list(run.noise))
        layer.set(weight_ih=run.weight_ih, bias_ih=run.bias_ih, weight_hh=run.weight_hh, bias_hh=run.bias_hh)
        layer.set(further_weights=list(run.further[::2]), further_biases=list(run.further[1::2]))
        layer.set(state_mask=run.state_mask, own_values=run.own)
        return layer

    def _fix(self) -> "_Call":
        """Set the values that are the same for all runs."""
        layout, plan, apart = self.program.layout, self.plan, self.plan.apart
        sources = [-1 - apart.index(block) if where is None else where for block, where in enumerate(plan.sources)]
        layer = _Call()
        layer.set(projected=layout.projected, recurrent=layout.recurrent, fed=len(layout.fed), states=layout.states)
        layer.set(saved=len(plan.saved), own=self.own, noise=layout.noise, apart=len(apart))
        inside, outside = zip(*layout.further, strict=True) if layout.further else ((), ())
        layer.set(further=len(layout.further), entering=sum(inside), leaving=sum(outside))
        layer.set(further_inside=_integers(inside), further_outside=_integers(outside))
        layer.set(further_saved=_integers([block for blocks in plan.further_saved for block in blocks]))
        layer.set(output_field=-1 if plan.output_field is None else plan.output_field)
        layer.set(fed_fields=_integers(layout.fed), gradient_sources=_integers(sources))
        layer.set(fed_saved=_integers([-1 if block is None else block for block in plan.fed_saved]))
        return layer

    def _check(self, run: LayerInputs) -> tuple[int, int, int]:
        layout = self.program.layout
        batch, time, width = run.inputs.shape
        hidden = run.initial[0].shape[1] if run.initial else 0
        blocks, fed = layout.projected * hidden, len(layout.fed) * hidden
        rows = layout.recurrent * hidden
        if run.weight_ih is None and width != blocks:
            raise ValueError(f"inputs have {width} features, expected {blocks}")
        shapes: list[tuple[str, Tensor | None, tuple[int, ...], bool]] = [
            ("inputs", run.inputs, (batch, time, width), True),
            ("weight_ih", run.weight_ih, (blocks, width), False),
            ("bias_ih", run.bias_ih, (blocks,), run.weight_ih is not None),
            ("weight_hh", run.weight_hh, (rows, fed), rows > 0),
            ("bias_hh", run.bias_hh, (rows,), False),
            ("state_mask", run.state_mask, (batch, fed), False),
            ("own parameters", run.own, (self.own, hidden), self.own > 0),
            *(("state", leaf, (batch, hidden), True) for leaf in run.initial),
            *(("noise", mask, (batch, hidden), True) for mask in run.noise),
        ]
        for (inside, outside), weight, bias in zip(layout.further, run.further[::2], run.further[1::2], strict=True):
            shapes.append(("a further weight", weight, (outside * hidden, inside * hidden), True))
            shapes.append(("a further bias", bias, (outside * hidden if bias.numel() else 0,), True))
        for name, tensor, shape, needed in shapes:
            if tensor is not None:
                self._expect(name, tensor, shape)
            elif needed:
                raise ValueError(f"{name} is missing")
        if (len(run.initial), len(run.noise)) != (layout.states, layout.noise):
            counts = f"{len(run.initial)} states and {len(run.noise)} masks"
            raise ValueError(f"{counts} are given, expected {layout.states} and {layout.noise}")
        if run.lengths is not None:
            self._expect("lengths", run.lengths, (batch,), torch.int64)
            if batch > 0 and not 0 <= int(run.lengths.min()) <= int(run.lengths.max()) <= time:
                raise ValueError(f"lengths are not all within 0 and {time}")
        return batch, time, hidden

    def _expect(self, name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
        dtype = dtype or self.dtype
        if tuple(tensor.shape) != shape or tensor.dtype != dtype or tensor.device.type != "cpu":
            found = f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device.type}"
            raise ValueError(f"{name}: {found}, expected {shape} {dtype} on cpu")
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is not contiguous")


_FUNCTIONS = ("infer", "keep", "back")


@cache
def _engine(dtype: torch.dtype, bfloat16_products: bool) -> ctypes.CDLL:
    native = resources.files("unrolled.backends.compiled") / "native"
    return load("engine", (native / "engine.cpp").read_text(), dtype, bfloat16_products=bfloat16_products)


def _integers(numbers: Sequence[int]) -> Any:
    return (ctypes.c_int64 * max(1, len(numbers)))(*numbers)


class _Call:
    """A `Layer` structure under construction. It keeps everything that it points to alive until the call has ended."""

    def __init__(self, begun: "_Call | None" = None) -> None:
        self.layer = Layer() if begun is None else Layer.from_buffer_copy(begun.layer)
        self.alive: list[Any] = [begun]

    def set(self, **values: Any) -> None:
        """Set fields to numbers, tensors, lists of tensors, arrays or addresses; None, or an empty tensor, is null."""
        for name, value in values.items():
            self.alive.append(value)
            if isinstance(value, Tensor):
                value = value.data_ptr() if value.numel() > 0 else ctypes.addressof(_NOTHING)
            elif isinstance(value, list):
                addresses = (leaf.data_ptr() if leaf.numel() > 0 else None for leaf in value)
                value = (ctypes.c_void_p * max(1, len(value)))(*addresses)
                self.alive.append(value)
            if isinstance(value, ctypes.Array):
                value = ctypes.addressof(value)
            setattr(self.layer, name, value)


def _call(function: Any, layer: Layer) -> None:
    """Run `forward` or `backward` of the engine.

    Raises:
        MemoryError: too little memory for the engine's own buffers.
        RuntimeError: another failure inside the engine.
    """
    failure = function(ctypes.byref(layer))
    if failure:
        raise _failed(failure, [getattr(layer, name) for name in _NUMBERS[:4]])


def _failed(code: int, of_layer: Sequence[int]) -> Exception:
    """Return the error for a code that the engine returned, given batch, time, input and hidden."""
    sizes = ", ".join(f"{name} {size}" for name, size in zip(_NUMBERS[:4], of_layer, strict=True))
    if code == _NO_MEMORY:
        return MemoryError(f"not enough memory for the compiled layer's buffers ({sizes})")
    return RuntimeError(f"the compiled layer failed ({sizes}; code {code}); use backend='loop', and report it")


_NOTHING = (ctypes.c_double * 1)()  # a valid address for an empty tensor, which isn't null
