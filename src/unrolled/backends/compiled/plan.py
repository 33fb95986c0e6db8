"""Chooses the values that a forward pass saves for its backward pass, given the program of a step.

Any value of the forward pass can be saved instead of the values that it is computed from. The choice minimizes the
number of saved columns, then the number of exponentials and divisions in the backward pass, then that of operations.
For an LSTM the result is the four gates and c_{t-1}. For Elman's network nothing is saved, since its output exists
anyway.
"""

from typing import NamedTuple, cast

from unrolled.backends.compiled.program import FUNCTIONS, Program, reached

_EXPENSIVE = {*FUNCTIONS, "div", "pow"}
_GIVEN_BACK = ("output_gradient", "state_gradients", "fed_gradients")  # leaves that exist only in the backward pass


class Plan(NamedTuple):
    """The values saved for the backward pass, and where the backward pass finds the others.

    saved: the places of the values saved at each step, one block of columns each.
    output_field: the field of the state that is also the output, so that it isn't saved; None if there is none.
    fed_saved: for each field that enters the recurrent product, its block in `saved`; None if it is the output.
    sources: for each block of the recurrent product, and then of the further ones, the projected block with the same
        gradient; None if there is none.
    further_saved: for each further product, the blocks in `saved` that are its factors.
    """

    saved: tuple[int, ...]
    output_field: int | None
    fed_saved: tuple[int | None, ...]
    sources: tuple[int | None, ...]
    further_saved: tuple[tuple[int, ...], ...]

    @property
    def apart(self) -> tuple[int, ...]:
        """The blocks of products whose gradients are stored separately."""
        return tuple(block for block, source in enumerate(self.sources) if source is None)


def plan(program: Program) -> Plan:
    """Choose the values to save."""
    values, layout = program.values, program.layout
    leaf: dict[tuple[str, int], int] = {
        cast(tuple[str, int], value.detail): place for place, value in enumerate(values) if value.operation == "leaf"
    }
    # If several fields are also the output, the one that enters the product saves most.
    order = (*layout.fed, *range(layout.states))
    output_field = next((field for field in order if program.states[field] == program.output), None)
    forced = [leaf[("states", field)] for field in layout.fed if field != output_field]
    forced = list(dict.fromkeys([*forced, *(place for places in program.fed for place in places)]))

    late = {place for (group, _), place in leaf.items() if group in _GIVEN_BACK}
    for place, value in enumerate(values):  # everything that depends on an incoming gradient
        if late.intersection(value.arguments):
            late.add(place)
    roots = [
        place for group in ("projected", "recurrent", "further", "states", "own") for place in program.gradients[group]
    ]
    free = {place for (group, _), place in leaf.items() if group in ("own", "noise")}
    free |= {place for place, value in enumerate(values) if value.operation in ("constant", "true", "false", "size")}
    free |= {program.output, *forced}
    if output_field is not None:
        free.add(leaf[("states", output_field)])

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
    fed_saved = (None if field == output_field else saved.index(leaf[("states", field)]) for field in layout.fed)
    further_saved = tuple(tuple(saved.index(place) for place in places) for places in program.fed)
    return Plan(saved, output_field, tuple(fed_saved), tuple(sources), further_saved)


def _index(places: tuple[int, ...], place: int) -> int | None:
    return places.index(place) if place in places else None
