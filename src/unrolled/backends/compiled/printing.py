"""A program of a step and its derivative as C++: loops over rows and units that a compiler turns into vectors."""

from collections.abc import Iterable, Sequence
from typing import cast

from unrolled.backends.compiled.program import COMPARISONS, LOGIC, Program, Value, is_logical, reached
from unrolled.backends.compiled.saving import Plan

_FORMATS = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "neg": "-{}",
    "where": "{} ? {} : {}",
    "maximum": "larger({}, {})",
    "minimum": "smaller({}, {})",
    "abs": "std::abs({})",
    "exp": "exponential({})",
    "sigmoid": "logistic({})",
    "tanh": "hyperbolic_tangent({})",
    "sign": "sign({})",
    "logical_not": "!{}",
    **{name: f"std::{name}({{}})" for name in ("expm1", "log", "log1p", "sqrt", "sin", "cos", "erf")},
    "pow": "std::pow({}, {})",
    **{name: f"{{}} {sign} {{}}" for name, sign in COMPARISONS.items()},
    **{name: f"{{}} {sign} {{}}" for name, sign in LOGIC.items() if name != "logical_not"},
}
_LEAVES = {
    "projected": "projected[{} * hidden + j]",
    "recurrent": "recurrent[{} * hidden + j]",
    "states": "state[{} * hidden + j]",
    "own": "step->own[{} * hidden + j]",
    "noise": "masks[{} * hidden + j]",
    "output_gradient": "output_gradient[j]",
    "state_gradients": "state[{} * hidden + j]",
}
_ROWS = {
    "projected": "const R* projected = step->projected[row];",
    "recurrent": "R* recurrent = step->recurrent + row * step->recurrent_stride;",
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
    """The functions `infer`, `keep` (which also saves) and `back` of a cell, each one step of some rows."""
    advance = [("output[j]", program.output)]
    advance += [(f"state[{field} * hidden + j]", place) for field, place in enumerate(program.states)]
    saving = [(f"saved[{block} * hidden + j]", place) for block, place in enumerate(plan.saved)]
    parts = ['#include "lanes.h"']
    parts.append(_function("infer", program.values, _forward_leaves(program), advance))
    parts.append(_function("keep", program.values, _forward_leaves(program), [*advance, *saving]))
    parts.append(_function("back", program.values, _backward_leaves(program, plan), _gradients(program, plan)))
    return "\n".join(parts)


def _forward_leaves(program: Program) -> dict[int, str]:
    return {place: _leaf(value) for place, value in enumerate(program.values) if value.operation == "leaf"}


def _backward_leaves(program: Program, plan: Plan) -> dict[int, str]:
    known = {
        place: text
        for place, text in _forward_leaves(program).items()
        if cast(tuple[str, int], program.values[place].detail)[0] not in ("projected", "recurrent", "states")
    }
    if plan.shown is not None:
        known[program.values.index(Value("leaf", (), ("states", plan.shown)))] = "previous[j]"
    known.setdefault(program.output, "output[j]")
    return known | {place: f"saved[{block} * hidden + j]" for block, place in enumerate(plan.saved)}


def _gradients(program: Program, plan: Plan) -> list[tuple[str, int]]:
    gradients = program.gradients
    stores = [(f"projected_gradient[{block} * hidden + j]", p) for block, p in enumerate(gradients["projected"])]
    stores += [(f"recurrent[{block} * hidden + j]", p) for block, p in enumerate(gradients["recurrent"])]
    stores += [
        (f"apart_gradient[{at} * hidden + j]", gradients["recurrent"][block]) for at, block in enumerate(plan.apart)
    ]
    stores += [(f"state[{field} * hidden + j]", place) for field, place in enumerate(gradients["states"])]
    return stores + [(f"+own_gradient[{index} * hidden + j]", place) for index, place in enumerate(gradients["own"])]


def _leaf(value: Value) -> str:
    group, index = cast(tuple[str, int], value.detail)
    return _LEAVES[group].format(index)


def _function(name: str, values: Sequence[Value], known: dict[int, str], stores: Sequence[tuple[str, int]]) -> str:
    """A function over rows and units: loads, operations, stores."""
    places = sorted(reached(values, [place for _, place in stores], frozenset(known)))
    body = [f"const {_type(values[p])} v{p} = {known.get(p) or _operation(values[p])};" for p in places]
    for target, place in stores:
        gradient = target.removeprefix("+own_gradient")
        written = f"step->own_gradient{gradient} +=" if target != gradient else f"{target} ="
        body.append(f"{written} {_as_number(values[place], place)};")
    used = " ".join(body)
    rows = [line for word, line in _ROWS.items() if f" {_word(word)}[" in f" {used}"]
    return _TEMPLATE.format(name=name, rows=_lines(rows, 4), body=_lines(body, 6))


def _word(group: str) -> str:
    return {"states": "state", "noise": "masks"}.get(group, group)


_TEMPLATE = """
extern "C" void {name}(const Step* step) {{
  const int64_t hidden = step->hidden;
  for (int64_t row = 0; row < step->rows; row++) {{
{rows}
#pragma GCC ivdep
    for (int64_t j = 0; j < hidden; j++) {{
{body}
    }}
  }}
}}"""


def _lines(lines: Iterable[str], indent: int) -> str:
    return "\n".join(" " * indent + line for line in lines)


def _type(value: Value) -> str:
    return "bool" if is_logical(value) else "R"


def _operation(value: Value) -> str:
    if value.operation in ("true", "false"):
        return value.operation
    if value.operation == "constant":
        number = float.fromhex(cast(str, value.detail))
        if number != number:
            return "R(NAN)"
        return f"R({'-' if number < 0 else ''}INFINITY)" if abs(number) == float("inf") else f"R({number!r})"
    return _FORMATS[value.operation].format(*(f"v{place}" for place in value.arguments))


def _as_number(value: Value, place: int) -> str:
    return f"v{place} ? R(1) : R(0)" if is_logical(value) else f"v{place}"
