"""The elementwise operations of a cell as a program on numbers: one step and its derivative.

A program is independent of the sizes of batch, hidden units and time. Most values exist once per row and unit. A
"total" is a sum over the units of a row, and "size" is their number. `evaluate` runs a program on tensors; it is the
reference for the generated C++.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
LOGIC = {"logical_and": "&", "logical_or": "|", "logical_not": "!"}
BINARY = frozenset({"add", "sub", "mul", "div", "maximum", "minimum", "logical_and", "logical_or", *COMPARISONS})
FUNCTIONS = ("exp", "expm1", "log", "log1p", "sqrt", "sigmoid", "tanh", "sin", "cos", "erf")
UNARY = frozenset({"neg", "abs", "sign", "logical_not", *FUNCTIONS})


class Value(NamedTuple):
    """An operation on earlier values, a leaf with detail (group, index), or a constant with its number as detail."""

    operation: str
    arguments: tuple[int, ...] = ()
    detail: Hashable = None


class Layout(NamedTuple):
    """The numbers of blocks of `hidden` columns in a step, and their meaning."""

    gates: int
    step_masks: int
    recurrent: int
    states: int
    noise: int
    fed: tuple[int, ...]  # the fields of the state that enter the recurrent product
    further: tuple[tuple[int, int], ...]  # of each further product: numbers of input and output blocks
    own: tuple[str, ...]  # names of the cell's own parameters and buffers

    @property
    def projected(self) -> int:
        """Number of blocks of the projected input, followed by masks."""
        return self.gates + self.step_masks


class Program(NamedTuple):
    """One step: values in an order in which they can be computed, and the places of its inputs and results."""

    layout: Layout
    values: tuple[Value, ...]
    output: int
    states: tuple[int, ...]
    fed: tuple[tuple[int, ...], ...]  # the factors of each further product
    gradients: dict[str, tuple[int, ...]]  # of the groups projected, recurrent, states, own, further

    def blocks(self, number: int) -> range:
        """Return the indices, in the group "further", of a further product's output blocks."""
        first = sum(out for _, out in self.layout.further[:number])
        return range(first, first + self.layout.further[number][1])

    def entering(self, number: int) -> range:
        """Return the indices, in the group "fed_gradients", of a further product's input blocks."""
        first = sum(inside for inside, _ in self.layout.further[:number])
        return range(first, first + self.layout.further[number][0])


def is_logical(value: Value) -> bool:
    """Return whether a value is boolean."""
    return value.operation in COMPARISONS or value.operation in LOGIC or value.operation in ("true", "false")


def _maximum(a: Tensor, b: Tensor) -> Tensor:
    return a.clamp(min=b) if b.dim() == 0 else torch.maximum(a, b)


def _minimum(a: Tensor, b: Tensor) -> Tensor:
    return a.clamp(max=b) if b.dim() == 0 else torch.minimum(a, b)


_TORCH: dict[str, Callable[..., Tensor]] = {
    **{name: getattr(torch, name) for name in (*BINARY, *UNARY, "where", "pow")},
    # At the bound itself, torch's clamp passes the whole gradient and torch.maximum half of it.
    "maximum": _maximum,
    "minimum": _minimum,
}


def evaluate(
    program: Program,
    leaf: Callable[[str, int], Tensor],
    further: Callable[[int, list[Tensor]], Sequence[Tensor]],
    like: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """Run one step on tensors, differentiably, and return the output and the next state.

    Args:
        program: the program of the step.
        leaf: returns the tensor of a leaf, given its group and index.
        further: computes a further product, given its number and its input blocks.
        like: (batch, hidden), a tensor with the shape of the results.
    """
    known: dict[int, Tensor] = {}

    def compute(roots: Sequence[int]) -> list[Tensor]:
        for place in sorted(reached(program.values, roots, frozenset(known)) - set(known)):
            value = program.values[place]
            if value.operation == "leaf":
                known[place] = leaf(*cast(tuple[str, int], value.detail))
            elif value.operation == "constant":
                known[place] = like.new_tensor(float.fromhex(cast(str, value.detail)))
            elif value.operation == "size":
                known[place] = like.new_tensor(float(like.shape[-1]))
            elif value.operation == "total":
                known[place] = known[value.arguments[0]].expand(like.shape).sum(-1, keepdim=True)
            elif value.operation in ("true", "false"):
                known[place] = torch.tensor(value.operation == "true", device=like.device)
            else:
                known[place] = _TORCH[value.operation](*(known[a] for a in value.arguments))
        return [known[place].expand(like.shape) for place in roots]

    for number, places in enumerate(program.fed):
        blocks = further(number, compute(places))
        names = [Value("leaf", (), ("further", index)) for index in program.blocks(number)]
        known |= {program.values.index(name): block for name, block in zip(names, blocks, strict=True)}
    output, *states = compute((program.output, *program.states))
    return output, states


def reached(values: Sequence[Value], roots: Sequence[int], known: frozenset[int]) -> set[int]:
    """Return the places that are visited to compute `roots`, including the known ones, but not their arguments."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        place = waiting.pop()
        if place not in seen:
            seen.add(place)
            if place not in known:
                waiting.extend(values[place].arguments)
    return seen
