"""C++ source for the program of a step and its derivative: loops over rows and units that the compiler vectorizes."""

from collections.abc import Iterable, Sequence
from typing import cast

from unrolled.backends.compiled.loops import Dialect, Store, write_loops
from unrolled.backends.compiled.plan import Plan
from unrolled.backends.compiled.program import Program, Value

_FUNCTIONS = {
    "maximum": "larger({}, {})",
    "minimum": "smaller({}, {})",
    "abs": "std::abs({})",
    "exp": "exponential({})",
    "sigmoid": "logistic({})",
    "tanh": "hyperbolic_tangent({})",
    "sign": "sign({})",
    **{name: f"std::{name}({{}})" for name in ("expm1", "log", "log1p", "sqrt", "sin", "cos", "erf")},
    "pow": "std::pow({}, {})",
}
_ZERO = Value("constant", (), (0.0).hex())
_LEAVES = {
    "projected": "projected[{} * hidden + j]",
    "recurrent": "recurrent[{} * hidden + j]",
    "states": "state[{} * hidden + j]",
    "own": "step->own[{} * hidden + j]",
    "noise": "masks[{} * hidden + j]",
    "further": "further[{} * hidden + j]",
    "fed_gradients": "fed[{} * hidden + j]",
    "output_gradient": "output_gradient[j]",
    "state_gradients": "state[{} * hidden + j]",
}
_ROWS = {
    "projected": "const R* projected = step->projected[row];",
    "recurrent": "R* recurrent = step->recurrent + row * step->recurrent_stride;",
    "further": "R* further = step->further + row * step->further_stride;",
    "fed": "R* fed = step->fed + row * step->fed_stride;",
    "states": "R* state = step->state + row * step->state_stride;",
    "noise": "const R* masks = step->masks[row];",
    "output": "R* output = step->output[row];",
    "saved": "R* saved = step->saved[row];",
    "previous": "const R* previous = step->previous[row];",
    "output_gradient": "const R* output_gradient = step->output_gradient[row];",
    "projected_gradient": "R* projected_gradient = step->projected_gradient[row];",
    "apart_gradient": "R* apart_gradient = step->apart_gradient[row];",
}


def source(program: Program, plan: Plan) -> str:
    """Return the source of a cell's functions, each a part of one step of some rows, numbered in calling order.

    The functions `infer`, and `keep`, which also saves values for the backward pass, compute the factors of each
    further product in turn and finally the next state. The functions `back` run in reverse order and finally compute
    the gradients of the projected input, of the recurrent product and of the state.
    """
    advance = [Store("output[j]", program.output)]
    advance += [Store(f"state[{field} * hidden + j]", place) for field, place in enumerate(program.states)]
    saving = [Store(f"saved[{block} * hidden + j]", place) for block, place in enumerate(plan.saved)]
    parts = ['#include "lanes.h"']
    known = _forward_leaves(program)
    for number, places in enumerate(program.fed):
        stores = [
            Store(f"fed[{at} * hidden + j]", place) for at, place in zip(program.entering(number), places, strict=True)
        ]
        parts += [_function(f"{name}_{number}", program.values, known, stores) for name in ("infer", "keep")]
        known |= {store.place: store.target for store in stores if store.place not in known}
    last = len(program.fed)
    parts.append(_function(f"infer_{last}", program.values, known, advance))
    parts.append(_function(f"keep_{last}", program.values, known, [*advance, *saving]))

    known = _backward_leaves(program, plan)
    for turn, number in enumerate(reversed(range(last))):
        blocks = program.blocks(number)
        stores = [Store(f"further[{block} * hidden + j]", program.gradients["further"][block]) for block in blocks]
        parts.append(_function(f"back_{turn}", program.values, known, stores))
        known |= {store.place: store.target for store in stores if store.place not in known}
    parts.append(_function(f"back_{last}", program.values, known, _gradients(program, plan)))
    return "\n".join(parts)


def _forward_leaves(program: Program) -> dict[int, str]:
    return {place: _leaf(value) for place, value in enumerate(program.values) if value.operation == "leaf"}


def _backward_leaves(program: Program, plan: Plan) -> dict[int, str]:
    known = {
        place: text
        for place, text in _forward_leaves(program).items()
        if cast(tuple[str, int], program.values[place].detail)[0] not in ("projected", "recurrent", "states", "further")
    }
    if plan.output_field is not None:
        known[program.values.index(Value("leaf", (), ("states", plan.output_field)))] = "previous[j]"
    known.setdefault(program.output, "output[j]")
    return known | {place: f"saved[{block} * hidden + j]" for block, place in enumerate(plan.saved)}


def _gradients(program: Program, plan: Plan) -> list[Store]:
    gradients = program.gradients
    of_products = (*gradients["recurrent"], *gradients["further"])
    stores = [Store(f"projected_gradient[{block} * hidden + j]", p) for block, p in enumerate(gradients["projected"])]
    stores += [Store(f"recurrent[{block} * hidden + j]", p) for block, p in enumerate(gradients["recurrent"])]
    stores += [Store(f"apart_gradient[{at} * hidden + j]", of_products[block]) for at, block in enumerate(plan.apart)]
    stores += [Store(f"state[{field} * hidden + j]", place) for field, place in enumerate(gradients["states"])]
    own = ((index, p) for index, p in enumerate(gradients["own"]) if program.values[p] != _ZERO)  # cleared before
    return stores + [Store(f"step->own_gradient[{index} * hidden + j]", place, "+=") for index, place in own]


def _leaf(value: Value) -> str:
    group, index = cast(tuple[str, int], value.detail)
    return _LEAVES[group].format(index)


def _function(name: str, values: Sequence[Value], known: dict[int, str], stores: Sequence[Store]) -> str:
    """Return the source of a function over rows and units: loads, operations, stores."""
    body, aside = write_loops(values, known, stores, _CPP)
    used = " ".join(body)
    rows = [line for word, line in _ROWS.items() if f" {_word(word)}[" in f" {used}"]
    room = [f"R* aside = (R*)__builtin_alloca({aside} * hidden * sizeof(R));"] if aside else []
    return _TEMPLATE.format(name=name, room=_lines(room, 2), rows=_lines(rows, 4), body=_lines(body, 4))


def _before(totals: Sequence[str]) -> list[str]:
    return [f"#pragma omp simd reduction(+ : {', '.join(totals)})" if totals else "#pragma GCC ivdep"]


def _constant(number: float) -> str:
    if number != number:
        return "R(NAN)"
    return f"R({'-' if number < 0 else ''}INFINITY)" if abs(number) == float("inf") else f"R({number!r})"


_CPP = Dialect(
    number="R",
    truth="bool",
    truths=("false", "true"),
    counter="int64_t",
    hidden="hidden",
    size="R(hidden)",
    functions=_FUNCTIONS,
    constant=_constant,
    before=_before,
)


def _word(group: str) -> str:
    return {"states": "state", "noise": "masks"}.get(group, group)


_TEMPLATE = """
extern "C" void {name}(const Step* step) {{
  const int64_t hidden = step->hidden;
{room}
  for (int64_t row = 0; row < step->rows; row++) {{
{rows}
{body}
  }}
}}"""


def _lines(lines: Iterable[str], indent: int) -> str:
    return "\n".join(" " * indent + line for line in lines)
