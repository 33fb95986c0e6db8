"""What a forward pass keeps for its backward pass, found from the program of a step.

Any value of the forward pass may be kept in place of the ones that it was computed from. Kept is what makes columns
fewest, then exponentials and divisions on the way back fewest, then operations. For an LSTM this finds the four gates
and c_{t-1}; for Elman's network nothing, since its output is there anyway.
"""

from typing import NamedTuple, cast

from unrolled.backends.compiled.program import FUNCTIONS, Program, reached

_EXPENSIVE = {*FUNCTIONS, "div", "pow"}
_GIVEN_BACK = ("output_gradient", "state_gradients", "fed_gradients")  # leaves that exist on the way back alone


class Plan(NamedTuple):
    """What lies where.

    saved: the places kept at each step, one block of columns each.
    shown: the field of the state that is the output too, so that it need not be kept; None for none.
    fed_saved: for each field that enters the recurrent product, its block in `saved`; None where it is the output.
    sources: for each block of the recurrent product, and then of the further ones, the projected block with the same
        gradient; None where there is none.
    further_saved: for each further product, the blocks in `saved` that entered it.
    """

    saved: tuple[int, ...]
    shown: int | None
    fed_saved: tuple[int | None, ...]
    sources: tuple[int | None, ...]
    further_saved: tuple[tuple[int, ...], ...]

    @property
    def apart(self) -> tuple[int, ...]:
        """The blocks of products whose gradients have to be kept for themselves."""
        return tuple(block for block, source in enumerate(self.sources) if source is None)


def plan(program: Program) -> Plan:
    """Choose what to keep."""
    values, layout = program.values, program.layout
    leaf: dict[tuple[str, int], int] = {
        cast(tuple[str, int], value.detail): place for place, value in enumerate(values) if value.operation == "leaf"
    }
    # The block fed into the product is the one that saves most where several are the output too.
    order = (*layout.fed, *range(layout.states))
    shown = next((field for field in order if program.states[field] == program.output), None)
    forced = [leaf[("states", field)] for field in layout.fed if field != shown]
    forced = list(dict.fromkeys([*forced, *(place for places in program.fed for place in places)]))

    late = {place for (group, _), place in leaf.items() if group in _GIVEN_BACK}
    for place, value in enumerate(values):  # whatever depends on a gradient that comes from outside
        if late.intersection(value.arguments):
            late.add(place)
    roots = [
        place for group in ("projected", "recurrent", "further", "states", "own") for place in program.gradients[group]
    ]
    free = {place for (group, _), place in leaf.items() if group in ("own", "noise")}
    free |= {place for place, value in enumerate(values) if value.operation in ("constant", "true", "false", "size")}
    free |= {program.output, *forced}
    if shown is not None:
        free.add(leaf[("states", shown)])

    def cost(chosen: set[int]) -> tuple[tuple[int, int, int], set[int]]:
        visited = reached(values, roots, frozenset(chosen | free)) - free - late
        kept = {place for place in visited if place in chosen or values[place].operation == "leaf"}
        computed = visited - kept
        return (len(kept), sum(values[p].operation in _EXPENSIVE for p in computed), len(computed)), kept

    best, kept = cost(set())
    for _ in range(2):
        for candidate in sorted(reached(values, [*roots, program.output, *program.states], frozenset()) - late - free):
            found, needed = cost({*kept, candidate})
            if found < best:
                best, kept = found, needed
    saved = (*forced, *sorted(kept - set(forced)))
    gradients = program.gradients
    sources = (_index(gradients["projected"], place) for place in (*gradients["recurrent"], *gradients["further"]))
    fed_saved = (None if field == shown else saved.index(leaf[("states", field)]) for field in layout.fed)
    further_saved = tuple(tuple(saved.index(place) for place in places) for places in program.fed)
    return Plan(saved, shown, tuple(fed_saved), tuple(sources), further_saved)


def _index(places: tuple[int, ...], place: int) -> int | None:
    return places.index(place) if place in places else None
