"""C++ source for the program of a step and its derivative: loops over rows and units that the compiler vectorizes."""

from collections.abc import Iterable, Sequence
from typing import cast

from unrolled.backends.compiled.plan import Plan
from unrolled.backends.compiled.program import COMPARISONS, LOGIC, Program, Value, is_logical, reached

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
    advance = [("output[j]", program.output)]
    advance += [(f"state[{field} * hidden + j]", place) for field, place in enumerate(program.states)]
    saving = [(f"saved[{block} * hidden + j]", place) for block, place in enumerate(plan.saved)]
    parts = ['#include "lanes.h"']
    known = _forward_leaves(program)
    for number, places in enumerate(program.fed):
        stores = [
            (f"fed[{at} * hidden + j]", place) for at, place in zip(program.entering(number), places, strict=True)
        ]
        parts += [_function(f"{name}_{number}", program.values, known, stores) for name in ("infer", "keep")]
        known |= {place: text for text, place in stores if place not in known}
    last = len(program.fed)
    parts.append(_function(f"infer_{last}", program.values, known, advance))
    parts.append(_function(f"keep_{last}", program.values, known, [*advance, *saving]))

    known = _backward_leaves(program, plan)
    for turn, number in enumerate(reversed(range(last))):
        blocks = program.blocks(number)
        stores = [(f"further[{block} * hidden + j]", program.gradients["further"][block]) for block in blocks]
        parts.append(_function(f"back_{turn}", program.values, known, stores))
        known |= {place: text for text, place in stores if place not in known}
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


def _gradients(program: Program, plan: Plan) -> list[tuple[str, int]]:
    gradients = program.gradients
    of_products = (*gradients["recurrent"], *gradients["further"])
    stores = [(f"projected_gradient[{block} * hidden + j]", p) for block, p in enumerate(gradients["projected"])]
    stores += [(f"recurrent[{block} * hidden + j]", p) for block, p in enumerate(gradients["recurrent"])]
    stores += [(f"apart_gradient[{at} * hidden + j]", of_products[block]) for at, block in enumerate(plan.apart)]
    stores += [(f"state[{field} * hidden + j]", place) for field, place in enumerate(gradients["states"])]
    own = ((index, p) for index, p in enumerate(gradients["own"]) if program.values[p] != _ZERO)  # cleared before
    return stores + [(f"+own_gradient[{index} * hidden + j]", place) for index, place in own]


def _leaf(value: Value) -> str:
    group, index = cast(tuple[str, int], value.detail)
    return _LEAVES[group].format(index)


def _function(name: str, values: Sequence[Value], known: dict[int, str], stores: Sequence[tuple[str, int]]) -> str:
    """Return the source of a function over rows and units: loads, operations, stores.

    Values that need a total over a row are computed in a further loop over the units. Values that a later loop needs
    again are stored in a temporary array.
    """
    places = sorted(reached(values, [place for _, place in stores], frozenset(known)))
    loops = _loops(values, known, places)
    last = max(loops.values(), default=0)
    of_row = _values_of_rows(values, known, places)
    needed = {place for _, place in stores}
    body: list[str] = []
    aside: dict[int, int] = {}
    had = {*of_row}
    for loop in range(last + 1):
        totals = [p for p in places if p not in known and values[p].operation == "total" and loops[p] == loop + 1]
        roots = [values[p].arguments[0] for p in totals] if loop < last else [*needed]
        inside = sorted(reached(values, roots, frozenset({*known, *aside, *of_row})) - of_row)
        had.update(inside)
        texts = {p: f"aside[{aside[p]} * hidden + j]" if p in aside else known.get(p) for p in inside}
        lines = [f"const {_type(values[p])} v{p} = {texts[p] or _operation(values[p])};" for p in inside]
        for place in inside if loop < last else ():
            cheap = place in known or place in aside or is_logical(values[place])
            if not cheap and (place in needed or any(place in values[p].arguments for p in places if p not in had)):
                aside[place] = len(aside)
                lines.append(f"aside[{aside[place]} * hidden + j] = v{place};")
        lines += [f"v{p} += {_as_number(values[a := values[p].arguments[0]], a)};" for p in totals]
        if loop == last:
            lines += [_store(target, values[place], place) for target, place in stores]
        here = [
            p for p in places if p in of_row and p not in known and loops[p] == loop and values[p].operation != "total"
        ]
        body += [f"const {_type(values[p])} v{p} = {_operation(values[p])};" for p in here]
        body += [f"R v{p} = 0;" for p in totals]
        body += _loop(lines, totals)
    used = " ".join(body)
    rows = [line for word, line in _ROWS.items() if f" {_word(word)}[" in f" {used}"]
    room = [f"R* aside = (R*)__builtin_alloca({len(aside)} * hidden * sizeof(R));"] if aside else []
    return _TEMPLATE.format(name=name, room=_lines(room, 2), rows=_lines(rows, 4), body=_lines(body, 4))


def _loops(values: Sequence[Value], known: dict[int, str], places: Sequence[int]) -> dict[int, int]:
    """Return the loop over the units in which each value is available: after the successive totals it depends on."""
    found: dict[int, int] = {}
    for place in places:
        before = 0 if place in known else max((found[a] for a in values[place].arguments), default=0)
        found[place] = before + (values[place].operation == "total" and place not in known)
    return found


def _values_of_rows(values: Sequence[Value], known: dict[int, str], places: Sequence[int]) -> set[int]:
    """Return the values that are the same for all units of a row: those that depend only on totals and constants."""
    found: set[int] = set()
    for place in places:
        value = values[place]
        if (
            place not in known
            and (value.operation in ("total", "size") or (value.arguments and found.issuperset(value.arguments)))
        ) or value.operation in ("constant", "true", "false"):
            found.add(place)
    return found


def _store(target: str, value: Value, place: int) -> str:
    gradient = target.removeprefix("+own_gradient")
    written = f"step->own_gradient{gradient} +=" if target != gradient else f"{target} ="
    return f"{written} {_as_number(value, place)};"


def _loop(lines: Sequence[str], totals: Sequence[int]) -> list[str]:
    names = ", ".join(f"v{place}" for place in totals)
    first = f"#pragma omp simd reduction(+ : {names})" if totals else "#pragma GCC ivdep"
    return [first, "for (int64_t j = 0; j < hidden; j++) {", *(f"  {line}" for line in lines), "}"]


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


def _type(value: Value) -> str:
    return "bool" if is_logical(value) else "R"


def _operation(value: Value) -> str:
    if value.operation in ("true", "false"):
        return value.operation
    if value.operation == "size":
        return "R(hidden)"
    if value.operation == "constant":
        number = float.fromhex(cast(str, value.detail))
        if number != number:
            return "R(NAN)"
        return f"R({'-' if number < 0 else ''}INFINITY)" if abs(number) == float("inf") else f"R({number!r})"
    return _FORMATS[value.operation].format(*(f"v{place}" for place in value.arguments))


def _as_number(value: Value, place: int) -> str:
    return f"v{place} ? R(1) : R(0)" if is_logical(value) else f"v{place}"
