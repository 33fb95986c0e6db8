"""A cell's `pointwise` run once on stand-ins, differentiated by torch, and read as a program."""

from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn

from unrolled.backends.compiled.program import Layout, Program
from unrolled.backends.compiled.reading import NotPointwiseError, Reader
from unrolled.cells.base import RecurrentNoise
from unrolled.cells.pointwise import PointwiseCell

AFFINE = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def layout_of(cell: PointwiseCell[Any]) -> Layout:
    """Look at what a cell hands to its `pointwise`, in its present mode; leaves torch's random numbers alone."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        noise = cell.noise(2, like=cell.weight_ih)
        width = cell.project(cell.weight_ih.new_zeros(1, cell.input_size)).shape[-1]
    if noise is not None and type(noise) is not RecurrentNoise:
        raise NotPointwiseError(f"its noise is a {type(noise).__name__}, not a RecurrentNoise")
    marks = tuple(torch.empty(0) for _ in cell.state_type._fields)
    fed: list[int] = []
    for entering in cell.recurrent_inputs(cell.state_type(*marks)):
        places = [place for place, mark in enumerate(marks) if mark is entering]
        if not places:
            raise NotPointwiseError("what enters its recurrent product is computed from the state, not part of it")
        fed += places
    return Layout(
        gates=cell.gates,
        step_masks=width // cell.hidden_size - cell.gates,
        recurrent=cell.recurrent_weight().shape[0] // cell.hidden_size if cell.has_recurrent_product else 0,
        states=len(marks),
        noise=0 if noise is None else len(noise.masks),
        fed=tuple(fed) if cell.has_recurrent_product else (),
        own=_own_names(cell),
    )


def _own_names(cell: PointwiseCell[Any]) -> tuple[str, ...]:
    """Parameters and buffers of the cell itself that `pointwise` may use, one number per unit or one for all."""
    holder = getattr(cell, "parametrizations", None)
    parametrized = {name for name, _ in holder.named_children()} if isinstance(holder, nn.Module) else set[str]()
    if not parametrized <= set(AFFINE):
        raise NotPointwiseError(f"its {', '.join(sorted(parametrized - set(AFFINE)))} is parametrized")
    for name, child in cell.named_children():
        if name != "parametrizations" and (any(True for _ in child.parameters()) or any(True for _ in child.buffers())):
            raise NotPointwiseError(f"its module {name!r} has parameters or buffers of its own")
    for name, value in vars(cell).items():
        if isinstance(value, Tensor):
            raise NotPointwiseError(f"its tensor {name!r} is neither a parameter nor a buffer")
    found = (*cell.named_parameters(recurse=False), *cell.named_buffers(recurse=False))
    shapes = ((), (1,), (cell.hidden_size,))  # a tensor of another shape may serve outside the maths; inside it, it is
    return tuple(name for name, value in found if name not in AFFINE and tuple(value.shape) in shapes)  # refused there


def trace(cell: PointwiseCell[Any], layout: Layout, dtype: torch.dtype) -> Program:
    """The program of a cell's `pointwise` in its present mode.

    Raises:
        NotPointwiseError: anything but elementwise maths.
    """
    from torch._decomp import core_aten_decompositions, get_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    sizes = {"projected": layout.projected, "recurrent": layout.recurrent, "states": layout.states}
    sizes |= {"own": len(layout.own), "noise": layout.noise}
    groups = [(group, index) for group, size in sizes.items() for index in range(size)]
    leaves = [*groups, ("output_gradient", 0), *(("state_gradients", index) for index in range(layout.states))]

    shape = (cell.hidden_size + 1, cell.hidden_size)  # so that rows and units are never mistaken for one another

    def step(*lanes: Tensor) -> tuple[Tensor, ...]:
        given = {group: tuple(v for v, (g, _) in zip(lanes, groups, strict=True) if g == group) for group in sizes}
        twin = _twin(cell, layout, given["own"])
        recurrent = (*given["recurrent"], *given["noise"])
        output, state = twin.pointwise(given["projected"], recurrent, twin.state_type(*given["states"]))
        results = (output, *state)
        if any(result.shape != shape for result in results):
            raise NotPointwiseError(
                f"its step turns (batch, hidden) into {[tuple(result.shape) for result in results]}"
            )
        return results

    def joint(*given: Tensor) -> tuple[Tensor, ...]:
        results, pull = cast(Any, torch.func.vjp)(step, *given[: len(groups)])
        return (*results, *pull(given[len(groups) :]))

    examples = [torch.full(shape, 0.5, dtype=dtype) for _ in leaves]
    with ExitStack() as stack:
        stack.enter_context(torch.autocast("cpu", enabled=False))
        stack.enter_context(torch.enable_grad())
        try:
            table = cast(Any, {**core_aten_decompositions(), **get_decompositions(_activations())})
            pure = cast(Any, torch.func.functionalize)(joint)  # operations in place as ordinary ones
            graph = make_fx(pure, decomposition_table=table, tracing_mode="fake")(*examples)
        except NotPointwiseError:
            raise
        except Exception as error:  # somebody's own maths, and tracing it, may raise anything
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise NotPointwiseError(f"its step cannot be traced: {first}") from error
    values, results = Reader(graph, shape, dtype).read(leaves)
    output, *rest = results
    states, rest = rest[: layout.states], rest[layout.states :]
    gradients = {group: tuple(v for v, (g, _) in zip(rest, groups, strict=True) if g == group) for group in sizes}
    return Program(layout, values, output, tuple(states), gradients)


def _activations() -> list[Any]:
    """Activations that torch calls core operators, with their derivatives."""
    names = ("elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "silu", "softplus", "lerp")
    found = [getattr(torch.ops.aten, name + end, None) for name in names for end in ("", "_backward")]
    return [operator for operator in found if operator is not None]


def _twin(cell: PointwiseCell[Any], layout: Layout, own: tuple[Tensor, ...]) -> PointwiseCell[Any]:
    """The cell with other tensors in the places of its own parameters."""
    twin = object.__new__(type(cell))  # copy.copy refuses parametrized cells
    vars(twin).update(vars(cell))
    replaced = dict(zip(layout.own, own, strict=True))
    for place in ("_parameters", "_buffers"):
        vars(twin)[place] = {name: replaced.get(name, value) for name, value in vars(cell)[place].items()}
    return twin
