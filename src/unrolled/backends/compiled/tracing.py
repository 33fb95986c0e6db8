"""Traces a cell's `pointwise` once on example tensors, differentiates it with torch, and lowers it to a program."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from unrolled.backends.compiled.lower import Lowering, NotPointwiseError
from unrolled.backends.compiled.program import Layout, Program, reached
from unrolled.cells.base import AffineCell, Cell, RecurrentNoise
from unrolled.cells.hooks import has_hooks
from unrolled.cells.pointwise import ChainedCell, PointwiseCell
from unrolled.wording import article, counted

_AFFINE = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def refusal(cell: Cell[Any]) -> str | None:
    """Return why the step of a cell can't be traced, as far as known without tracing it; None if nothing is found."""
    kind = type(cell).__name__
    if not isinstance(cell, PointwiseCell):
        return f"only pointwise cells can be compiled, and {kind} is not one"
    whole = ChainedCell if isinstance(cell, ChainedCell) else PointwiseCell
    for name, base in (("step", whole), ("recur", PointwiseCell), ("recurrent_factors", AffineCell)):
        if name in vars(cell) or getattr(type(cell), name) is not getattr(base, name):
            return f"{kind} overrides {name}, which may compute anything"
    for name, child in vars(cell)["_modules"].items():
        if has_hooks(child):
            return f"its module {name!r} has hooks"
    if len(cell.state_type._fields) == 0:
        return f"{kind} has no state"
    if cell.output_size != cell.hidden_size:
        return f"{kind} has {cell.output_size} outputs and {cell.hidden_size} units; a compiled cell needs equal sizes"
    return None


def layout_of(cell: PointwiseCell[Any]) -> Layout:
    """Determine the arguments of a cell's `pointwise` in its present mode, without changing torch's random state."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        noise = cell.noise(2, like=cell.weight_ih)
        width = cell.project(cell.weight_ih.new_zeros(1, cell.input_size)).shape[-1]
    if noise is not None and type(noise) is not RecurrentNoise:
        raise NotPointwiseError(f"its noise is {article(type(noise).__name__)}, not a RecurrentNoise")
    marks = tuple(torch.empty(0) for _ in cell.state_type._fields)
    fed: list[int] = []
    for entering in cell.recurrent_inputs(cell.state_type(*marks)):
        places = [place for place, mark in enumerate(marks) if mark is entering]
        if not places:
            raise NotPointwiseError("its recurrent product takes a tensor that is computed from the state")
        fed += places
    products = cell.products(cell.recurrent_weight()) if cell.has_recurrent_product else ()
    blocks = [_blocks(weight.shape, cell.hidden_size) for weight, _ in products]
    return Layout(
        gates=cell.gates,
        step_masks=width // cell.hidden_size - cell.gates,
        recurrent=blocks[0][1] if blocks else 0,
        states=len(marks),
        noise=0 if noise is None else len(noise.masks),
        fed=tuple(fed) if cell.has_recurrent_product else (),
        further=tuple(blocks[1:]),
        own=_own_names(cell),
    )


def _blocks(shape: Sequence[int], hidden: int) -> tuple[int, int]:
    """Return the numbers of input and output blocks of a product."""
    if shape[0] % hidden or shape[1] % hidden:
        raise NotPointwiseError(f"a product has weights {tuple(shape)}, not blocks of {counted(hidden, 'unit')}")
    return shape[1] // hidden, shape[0] // hidden


def _own_names(cell: PointwiseCell[Any]) -> tuple[str, ...]:
    """Return the names of the cell's parameters and buffers that `pointwise` may use: per unit, or one for all units.

    They include a bias that is not part of a product.
    """
    holder = getattr(cell, "parametrizations", None)
    parametrized = {name for name, _ in holder.named_children()} if isinstance(holder, nn.Module) else set[str]()
    if not parametrized <= set(_AFFINE):
        raise NotPointwiseError(f"its {', '.join(sorted(parametrized - set(_AFFINE)))} is parametrized")
    for name, child in cell.named_children():
        if name != "parametrizations" and (any(True for _ in child.parameters()) or any(True for _ in child.buffers())):
            raise NotPointwiseError(f"its module {name!r} has parameters or buffers of its own")
    for name, value in vars(cell).items():
        if isinstance(value, Tensor):
            raise NotPointwiseError(f"its tensor {name!r} is neither a parameter nor a buffer")
    found = (*cell.named_parameters(recurse=False), *cell.named_buffers(recurse=False))
    # A tensor of another shape may be used outside `pointwise`; if `pointwise` uses it, tracing raises an error.
    return tuple(name for name, value in found if name not in taken(cell) and own_blocks(value, cell.hidden_size))


def taken(cell: PointwiseCell[Any]) -> frozenset[str]:
    """Return the names of parameters that the products use."""
    products = cell.products(cell.recurrent_weight()) if cell.has_recurrent_product else ()
    biases = {bias for _, bias in products if bias is not None}
    return frozenset({"weight_ih", "weight_hh", "bias_ih", *(["bias_hh"] if biases or not products else [])})


def own_blocks(value: Tensor, hidden: int) -> int:
    """Return the number of blocks of units in a parameter; 1 for a single number, and 0 for any other shape."""
    if tuple(value.shape) in ((), (1,)):
        return 1
    return value.shape[0] // hidden if value.dim() == 1 and value.shape[0] % hidden == 0 else 0


def own_values(cell: PointwiseCell[Any], names: Sequence[str]) -> Tensor | None:
    """Return the cell's own parameters as one tensor (blocks, hidden); None if there are none."""
    if not names:
        return None
    values = [getattr(cell, name) for name in names]
    return torch.cat([v.expand(cell.hidden_size) if v.numel() == 1 else v for v in values]).view(-1, cell.hidden_size)


# (a cell, blocks of products with the input) -> the blocks of its projected input
Project = Callable[[PointwiseCell[Any], tuple[Tensor, ...]], tuple[Tensor, ...]]


def trace(
    cell: PointwiseCell[Any], layout: Layout, dtype: torch.dtype, project: Project = lambda _, blocks: blocks
) -> Program:
    """Return the program of a cell's `pointwise` in its present mode, independently of the caller's torch settings.

    It runs in a new thread, since saved-tensor hooks, such as those of torch.utils.checkpoint, autocast, grad mode and
    the transforms of torch.func are settings of a thread.

    Args:
        cell: the cell.
        layout: its arguments.
        dtype: dtype of all numbers.
        project: elementwise operations between the product with the input and `pointwise`; none by default.

    Raises:
        NotPointwiseError: `pointwise` is not elementwise.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_trace, cell, layout, dtype, project).result()


def _trace(cell: PointwiseCell[Any], layout: Layout, dtype: torch.dtype, project: Project) -> Program:
    sizes = {"projected": layout.projected, "recurrent": layout.recurrent, "states": layout.states}
    sizes |= {"own": sum(own_blocks(getattr(cell, name), cell.hidden_size) for name in layout.own)}
    sizes |= {"noise": layout.noise, "further": sum(out for _, out in layout.further)}
    groups = [(group, index) for group, size in sizes.items() for index in range(size)]
    entering = sum(inside for inside, _ in layout.further)
    leaves = [*groups, ("output_gradient", 0), *(("state_gradients", index) for index in range(layout.states))]
    leaves += [("fed_gradients", index) for index in range(entering)]

    shape = (cell.hidden_size + 1, cell.hidden_size)  # different sizes distinguish rows and units

    def step(*lanes: Tensor) -> tuple[Tensor, ...]:
        given = {group: tuple(v for v, (g, _) in zip(lanes, groups, strict=True) if g == group) for group in sizes}
        copy = _copy_with(cell, layout, given["own"])
        recurrent = (*given["recurrent"], *given["noise"])
        arguments = project(copy, given["projected"]), recurrent, copy.state_type(*given["states"])
        chain = _Chain(layout, given["further"])
        output, state = copy.chain(*arguments, chain) if isinstance(copy, ChainedCell) else copy.pointwise(*arguments)
        results = (output, *state, *chain.fed())
        if any(result.shape != shape for result in results):
            raise NotPointwiseError(f"its step maps (batch, hidden) to {[tuple(result.shape) for result in results]}")
        return results

    def joint(*given: Tensor) -> tuple[Tensor, ...]:
        results, pull = cast(Any, torch.func.vjp)(step, *given[: len(groups)])
        return (*results, *pull(given[len(groups) :]))

    examples = [torch.full(shape, 0.5, dtype=dtype) for _ in leaves]
    try:
        from torch.fx.experimental.proxy_tensor import make_fx

        pure = cast(Any, torch.func.functionalize)(joint)  # replaces in-place operations
        graph = make_fx(pure, decomposition_table=_decompositions(), tracing_mode="fake")(*examples)
    except NotPointwiseError:
        raise
    except Exception as error:  # a user's cell, and tracing it, may raise anything
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NotPointwiseError(f"its step cannot be traced: {first}") from error
    values, results = Lowering(graph, shape, dtype).read(leaves)
    output, *rest = results
    states, rest = rest[: layout.states], rest[layout.states :]
    fed, rest = rest[:entering], rest[entering:]
    gradients = {group: tuple(v for v, (g, _) in zip(rest, groups, strict=True) if g == group) for group in sizes}
    program = Program(layout, values, output, tuple(states), (), gradients)
    program = program._replace(
        fed=tuple(tuple(fed[at] for at in program.entering(number)) for number in range(len(layout.further)))
    )
    _check_order(program)
    return program


class _Chain:
    """Replaces the further products of a step during tracing: records their inputs and returns leaves as outputs."""

    def __init__(self, layout: Layout, further: tuple[Tensor, ...]) -> None:
        self.layout = layout
        self.remaining = list(further)
        self.entered: list[tuple[Tensor, ...]] = []

    def __call__(self, number: int, *blocks: Tensor) -> tuple[Tensor, ...]:
        if number != len(self.entered) + 1 or number > len(self.layout.further):
            raise NotPointwiseError(f"it calls product {number} out of order")
        inside, out = self.layout.further[number - 1]
        if len(blocks) != inside:
            raise NotPointwiseError(f"its product {number} gets {len(blocks)} blocks, expected {inside}")
        self.entered.append(blocks)
        given, self.remaining = self.remaining[:out], self.remaining[out:]
        return tuple(given)

    def fed(self) -> list[Tensor]:
        if len(self.entered) != len(self.layout.further):
            raise NotPointwiseError(f"it calls {len(self.entered)} of {len(self.layout.further)} further products")
        return [block for blocks in self.entered for block in blocks]


def _check_order(program: Program) -> None:
    for number, places in enumerate(program.fed):
        late = {("further", index) for index in range(program.blocks(number).start, 1 << 16)}
        if any(program.values[place].detail in late for place in reached(program.values, places, frozenset())):
            raise NotPointwiseError(f"the input of its product {number + 1} depends on the output")


def _decompositions() -> dict[Any, Any]:
    """Return decompositions of operators into simpler ones."""
    return {**torch.export.default_decompositions(), **_activations(), **_normalizations()}


@cache
def _activations() -> dict[Any, Any]:
    """Return decompositions of activations that are core operators of torch, and of their derivatives.

    They are in a private module of torch. If it is missing, only cells with such activations can't be compiled.
    """
    try:
        from torch._decomp import get_decompositions
    except ImportError:
        return {}
    names = ("elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "silu", "softplus", "lerp")
    found = [getattr(torch.ops.aten, name + end, None) for name in names for end in ("", "_backward")]
    return get_decompositions([operator for operator in found if operator is not None])


def _normalizations() -> dict[Any, Any]:
    """Return decompositions of layer normalization over the last axis, without affine parameters, into row means."""

    def forward(values: Tensor, shape: list[int], weight: Any, bias: Any, epsilon: float) -> tuple[Tensor, ...]:
        if weight is not None or bias is not None or len(shape) != 1:
            raise NotPointwiseError("its layer_norm has weights or several axes; apply the weights after it")
        mean = values.mean(-1, keepdim=True)
        centred = values - mean
        scale = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + epsilon)
        return centred * scale, mean, scale

    def backward(
        gradient: Tensor, values: Tensor, _: list[int], mean: Tensor, scale: Tensor, *__: Any
    ) -> tuple[Tensor | None, ...]:
        normal = (values - mean) * scale
        along = (gradient * normal).mean(-1, keepdim=True)
        return scale * (gradient - gradient.mean(-1, keepdim=True) - normal * along), None, None

    operators = torch.ops.aten
    return {operators.native_layer_norm.default: forward, operators.native_layer_norm_backward.default: backward}


def _copy_with(cell: PointwiseCell[Any], layout: Layout, own: tuple[Tensor, ...]) -> PointwiseCell[Any]:
    """Return a copy of the cell with other tensors in place of its own parameters, each with its number of blocks."""
    copy = object.__new__(type(cell))  # copy.copy refuses parametrized cells
    vars(copy).update(vars(cell))
    remaining, replaced = iter(own), dict[str, Tensor]()
    for name in layout.own:
        parts = [next(remaining) for _ in range(own_blocks(getattr(cell, name), cell.hidden_size))]
        replaced[name] = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    for place in ("_parameters", "_buffers"):
        vars(copy)[place] = {name: replaced.get(name, value) for name, value in vars(cell)[place].items()}
    return copy
