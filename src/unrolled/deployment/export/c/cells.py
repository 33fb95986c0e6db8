"""Cells and stacks of cells in C, from the trace that the compiled backend uses."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unrolled.backends.compiled.loops import Dialect, Store, write_loops
from unrolled.backends.compiled.lower import NotPointwiseError
from unrolled.backends.compiled.program import Program
from unrolled.backends.compiled.tracing import own_values, refusal
from unrolled.cells.base import Cell
from unrolled.cells.hooks import freeze_computed_weights, has_hooks
from unrolled.cells.pointwise import PointwiseCell
from unrolled.deployment.export.c.projections import traced
from unrolled.deployment.export.c.source import Body, Source, literal
from unrolled.layers.feedforward import FeedForward
from unrolled.layers.recurrent import Recurrent
from unrolled.state import leaves

_FUNCTIONS = {
    "abs": "fabsf({})",
    "sigmoid": "$_sigmoid({})",
    "sign": "$_sign({})",
    "maximum": "$_larger({}, {})",
    "minimum": "$_smaller({}, {})",
    **{n: f"{n}f({{}})" for n in ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "sin", "cos", "erf")},
    "pow": "powf({}, {})",
}
_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "{0} > 0.0f ? {0} : 0.0f",
    nn.Tanh: "tanhf({0})",
    nn.Sigmoid: "$_sigmoid({0})",
    nn.Softsign: "{0} / (1.0f + fabsf({0}))",
}


class CellWeights(NamedTuple):
    """What a step of a cell computes, and its weights.

    Attributes:
        program: the elementwise operations.
        projection: weight (blocks × hidden, input) and bias of the product with the input.
        products: weight and bias, or None, of each product of a step.
        own: (blocks, hidden), the cell's own parameters; None if there are none.
    """

    program: Program
    projection: tuple[Tensor, Tensor]
    products: tuple[tuple[Tensor, Tensor | None], ...]
    own: Tensor | None


def cell_weights(cell: Cell[Any]) -> CellWeights:
    """Trace a cell in evaluation mode, and compute its weights.

    Raises:
        ValueError: a cell that is not pointwise, or has hooks.
    """
    kind = type(cell).__name__
    if has_hooks(cell):
        raise ValueError(f"{kind} has hooks; remove them, such as with torch.nn.utils.prune.remove")
    if (reason := refusal(cell)) is not None:
        raise ValueError(f"{reason}; C is written for a PointwiseCell or a ChainedCell: use one, such as model=lstm")
    known = freeze_computed_weights(cast("PointwiseCell[Any]", cell))
    try:
        program, projection = traced(known)
    except NotPointwiseError as reason:
        raise ValueError(f"{kind} cannot be written in C: {reason}") from None
    products = known.products(known.recurrent_weight()) if known.has_recurrent_product else ()
    return CellWeights(program, projection, products, own_values(known, program.layout.own))


def write_core(source: Source, core: nn.Module, body: Body, inputs: str) -> str:
    """Add a step of a stack to a function that has `state`, and return the array of its output.

    Raises:
        ValueError: a network in two directions, or one whose cells have no trace.
    """
    if type(core) is FeedForward:
        return _feed_forward(source, core, body, inputs)
    if type(core) is not Recurrent:
        raise ValueError(f"a core of the class {type(core).__name__} cannot be written in C; use a Recurrent")
    if core.bidirectional:
        raise ValueError(
            "the network is bidirectional, and a step cannot read what follows; train it with bidirectional=false "
            "(classification: encoder.frame.bidirectional=false or encoder.token.bidirectional=false)"
        )
    initial = core.initial_state(1, like=next(core.parameters()))
    size = core.input_size
    for layer, (cell, before) in enumerate(zip(core.cells, initial, strict=True)):
        cell = cast("Cell[Any]", cell)
        state = source.state(torch.cat([leaf[0] for leaf in leaves(before)]), f"layer_{layer}")
        name = _layer_function(source, layer, cell_weights(cell), cell.hidden_size)
        output = body.array(cell.output_size)
        body.add(f"{name}({inputs}, {state}, {output});")
        if core.residual and size == cell.output_size:
            body.each(size, f"{output}[j] += {inputs}[j];")
        inputs, size = output, cell.output_size
    return inputs


def _layer_function(source: Source, layer: int, weights: CellWeights, hidden: int) -> str:
    """Add the function of a layer's step, and return its name."""
    layout, body = weights.program.layout, Body()
    body.array(layout.projected * hidden, "projected")
    body.add(source.affine(*weights.projection, "inputs", "projected"))
    if weights.products:
        body.array(layout.recurrent * hidden, "recurrent")
        body.add(source.affine(*weights.products[0], _fed(layout.fed, hidden, body), "recurrent"))
    segments, aside = _segments(source, weights, hidden)
    if layout.further:
        body.array(max(inside for inside, _ in layout.further) * hidden, "fed")
        body.array(sum(out for _, out in layout.further) * hidden, "further")
    if aside:
        body.array(aside * hidden, "aside")
    for segment in segments:
        body.add(*(["{", *(f"  {line}" for line in segment), "}"] if len(segments) > 1 else segment))
    name = f"$_layer_{layer}"
    source.function(f"static void {name}(const float *inputs, float *state, float *output)", body)
    return name


def _segments(source: Source, weights: CellWeights, hidden: int) -> tuple[list[list[str]], int]:
    """Return the lines between two products each, and the number of blocks that they put aside."""
    program, dialect = weights.program, _dialect(hidden)
    known = _leaves(source, weights, hidden)
    segments: list[list[str]] = []
    aside = 0
    for number, places in enumerate(program.fed):
        stores = [Store(_element("fed", at * hidden), place) for at, place in enumerate(places)]
        loops = write_loops(program.values, known, stores, dialect)
        output = _from("further", program.blocks(number).start * hidden)
        segments.append([*loops.lines, source.affine(*weights.products[number + 1], "fed", output)])
        aside = max(aside, loops.aside)
    stores = [Store("output[j]", program.output)]
    stores += [Store(_element("state", field * hidden), place) for field, place in enumerate(program.states)]
    loops = write_loops(program.values, known, stores, dialect)
    return [*segments, loops.lines], max(aside, loops.aside)


def _leaves(source: Source, weights: CellWeights, hidden: int) -> dict[int, str]:
    """Return the texts of the values that a step is given."""
    arrays = {"projected": "projected", "recurrent": "recurrent", "states": "state", "further": "further"}
    if weights.own is not None:
        arrays["own"] = source.vector(weights.own)
    found: dict[int, str] = {}
    for place, value in enumerate(weights.program.values):
        if value.operation == "leaf":
            group, index = cast("tuple[str, int]", value.detail)
            if group in arrays:
                found[place] = _element(arrays[group], index * hidden)
    return found


def _dialect(hidden: int) -> Dialect:
    return Dialect(
        number="float",
        truth="int",
        truths=("0", "1"),
        counter="int",
        hidden=str(hidden),
        size=literal(float(hidden)),
        functions=_FUNCTIONS,
        constant=_constant,
        before=_before,
    )


def _constant(number: float) -> str:
    """Return a number of a program, which torch rounds to float32, too."""
    return literal(torch.tensor(number, dtype=torch.float32).item())


def _before(_: Sequence[str]) -> list[str]:
    return []


def _fed(fields: tuple[int, ...], hidden: int, body: Body) -> str:
    """Return the array that enters the recurrent product: fields of the state, one after the other."""
    if fields == tuple(range(fields[0], fields[0] + len(fields))):
        return _from("state", fields[0] * hidden)
    body.array(len(fields) * hidden, "entering")
    for at, field in enumerate(fields):
        body.each(hidden, f"{_element('entering', at * hidden)} = {_element('state', field * hidden)};")
    return "entering"


def _from(array: str, offset: int) -> str:
    return f"{array} + {offset}" if offset else array


def _element(array: str, offset: int) -> str:
    return f"{array}[{offset} + j]" if offset else f"{array}[j]"


def _feed_forward(source: Source, core: FeedForward, body: Body, inputs: str) -> str:
    kind = type(core.activation)
    for layer in core.layers:
        layer = cast("nn.Linear", layer)
        output = body.array(layer.out_features)
        body.add(source.affine(layer.weight, layer.bias, inputs, output))
        residual = core.residual and layer.in_features == layer.out_features
        added = f" + {inputs}[j]" if residual else ""
        body.each(layer.out_features, f"{output}[j] = ({_ACTIVATIONS[kind].format(f'{output}[j]')}){added};")
        inputs = output
    return inputs
