"""Loops over the units that compute values of a program, as kernels in C++ and exported programs in C write them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

from unrolled.backends.compiled.program import COMPARISONS, LOGIC, Value, is_logical, reached

# The operations that C and C++ write alike.
OPERATORS = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "neg": "-{}",
    "where": "{} ? {} : {}",
    "logical_not": "!{}",
    **{name: f"{{}} {sign} {{}}" for name, sign in COMPARISONS.items()},
    **{name: f"{{}} {sign} {{}}" for name, sign in LOGIC.items() if name != "logical_not"},
}


class Dialect(NamedTuple):
    """How a language writes the values of a program.

    Attributes:
        number: the type of numbers.
        truth: the type of booleans.
        truths: false and true.
        counter: the type of a loop's counter.
        hidden: the number of units, as a limit of a loop.
        size: the number of units, as a number.
        functions: operation → format, of all operations besides `OPERATORS`.
        constant: writes a number.
        before: returns the lines before a loop, given the names of the totals that it computes.
    """

    number: str
    truth: str
    truths: tuple[str, str]
    counter: str
    hidden: str
    size: str
    functions: Mapping[str, str]
    constant: Callable[[float], str]
    before: Callable[[Sequence[str]], list[str]]


class Store(NamedTuple):
    """A value that a loop stores in a block of an array, or adds to it."""

    target: str
    place: int
    sign: str = "="


class Loops(NamedTuple):
    """The lines of successive loops, and the number of blocks in the array `aside` that they use."""

    lines: list[str]
    aside: int


def write_loops(values: Sequence[Value], known: Mapping[int, str], stores: Sequence[Store], dialect: Dialect) -> Loops:
    """Return loops over the units that compute and store values, given the texts of those that are known.

    Values that need a total over a row are computed in a further loop over the units. Values that a later loop needs
    again are stored in a temporary array, `aside`.
    """
    places = sorted(reached(values, [store.place for store in stores], frozenset(known)))
    loops = _loops(values, known, places)
    last = max(loops.values(), default=0)
    of_row = _values_of_rows(values, known, places)
    needed = {store.place for store in stores}
    body: list[str] = []
    aside: dict[int, int] = {}
    had = {*of_row}
    for loop in range(last + 1):
        totals = [p for p in places if p not in known and values[p].operation == "total" and loops[p] == loop + 1]
        roots = [values[p].arguments[0] for p in totals] if loop < last else [*needed]
        inside = sorted(reached(values, roots, frozenset({*known, *aside, *of_row})) - of_row)
        had.update(inside)
        texts = {p: f"aside[{aside[p]} * {dialect.hidden} + j]" if p in aside else known.get(p) for p in inside}
        lines = [_declared(values[p], p, texts[p], dialect) for p in inside]
        for place in inside if loop < last else ():
            cheap = place in known or place in aside or is_logical(values[place])
            if not cheap and (place in needed or any(place in values[p].arguments for p in places if p not in had)):
                aside[place] = len(aside)
                lines.append(f"aside[{aside[place]} * {dialect.hidden} + j] = v{place};")
        lines += [f"v{p} += {_as_number(values[a := values[p].arguments[0]], a, dialect)};" for p in totals]
        if loop == last:
            lines += [f"{s.target} {s.sign} {_as_number(values[s.place], s.place, dialect)};" for s in stores]
        here = [
            p for p in places if p in of_row and p not in known and loops[p] == loop and values[p].operation != "total"
        ]
        body += [_declared(values[p], p, None, dialect) for p in here]
        body += [f"{dialect.number} v{p} = 0;" for p in totals]
        body += dialect.before([f"v{p}" for p in totals])
        body += [f"for ({dialect.counter} j = 0; j < {dialect.hidden}; j++) {{", *(f"  {line}" for line in lines), "}"]
    return Loops(body, len(aside))


def _loops(values: Sequence[Value], known: Mapping[int, str], places: Sequence[int]) -> dict[int, int]:
    """Return the loop over the units in which each value is available: after the successive totals it depends on."""
    found: dict[int, int] = {}
    for place in places:
        before = 0 if place in known else max((found[a] for a in values[place].arguments), default=0)
        found[place] = before + (values[place].operation == "total" and place not in known)
    return found


def _values_of_rows(values: Sequence[Value], known: Mapping[int, str], places: Sequence[int]) -> set[int]:
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


def _declared(value: Value, place: int, text: str | None, dialect: Dialect) -> str:
    kind = dialect.truth if is_logical(value) else dialect.number
    return f"const {kind} v{place} = {text or _operation(value, dialect)};"


def _operation(value: Value, dialect: Dialect) -> str:
    if value.operation in ("true", "false"):
        return dialect.truths[value.operation == "true"]
    if value.operation == "size":
        return dialect.size
    if value.operation == "constant":
        return dialect.constant(float.fromhex(cast(str, value.detail)))
    form = OPERATORS.get(value.operation) or dialect.functions[value.operation]
    return form.format(*(f"v{place}" for place in value.arguments))


def _as_number(value: Value, place: int, dialect: Dialect) -> str:
    one, zero = dialect.constant(1.0), dialect.constant(0.0)
    return f"v{place} ? {one} : {zero}" if is_logical(value) else f"v{place}"
