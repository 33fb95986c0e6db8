"""The pointwise maths of a cell as a program on numbers: one step and its derivative.

A program knows no batch, no number of units and no time. Most values are one for each row and unit; a "total" is summed
over a row's units, and "size" is their number. `evaluate` runs a program on tensors, which is the definition that the
printed C++ is tested against.
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
    """An operation on values before it, a leaf, whose detail is (group, index), or a constant, whose detail it is."""

    operation: str
    arguments: tuple[int, ...] = ()
    detail: Hashable = None


class Layout(NamedTuple):
    """How many blocks of `hidden` columns a step has, and what they are."""

    gates: int
    step_masks: int
    recurrent: int
    states: int
    noise: int
    fed: tuple[int, ...]  # the fields of the state that enter the recurrent product
    further: tuple[tuple[int, int], ...]  # of each product behind it: blocks that enter, and that come out
    own: tuple[str, ...]  # names of the cell's own parameters and buffers

    @property
    def projected(self) -> int:
        """Blocks that come from the input, masks behind them."""
        return self.gates + self.step_masks


class Program(NamedTuple):
    """One step: values in an order in which they can be computed, and which of them are what."""

    layout: Layout
    values: tuple[Value, ...]
    output: int
    states: tuple[int, ...]
    fed: tuple[tuple[int, ...], ...]  # what enters each further product
    gradients: dict[str, tuple[int, ...]]  # of the groups projected, recurrent, states, own, further

    def blocks(self, number: int) -> range:
        """Which of the group "further" are the blocks of a further product."""
        first = sum(out for _, out in self.layout.further[:number])
        return range(first, first + self.layout.further[number][1])

    def entering(self, number: int) -> range:
        """Which of the group "fed_gradients" belong to what enters a further product."""
        first = sum(inside for inside, _ in self.layout.further[:number])
        return range(first, first + self.layout.further[number][0])


def is_logical(value: Value) -> bool:
    """Whether a value is true or false rather than a number."""
    return value.operation in COMPARISONS or value.operation in LOGIC or value.operation in ("true", "false")


def _maximum(a: Tensor, b: Tensor) -> Tensor:
    return a.clamp(min=b) if b.dim() == 0 else torch.maximum(a, b)


def _minimum(a: Tensor, b: Tensor) -> Tensor:
    return a.clamp(max=b) if b.dim() == 0 else torch.minimum(a, b)


_TORCH: dict[str, Callable[..., Tensor]] = {
    **{name: getattr(torch, name) for name in (*BINARY, *UNARY, "where", "pow")},
    # At the bound itself torch's clamp passes the gradient on, where maximum halves it.
    "maximum": _maximum,
    "minimum": _minimum,
}


def evaluate(
    program: Program,
    leaf: Callable[[str, int], Tensor],
    further: Callable[[int, list[Tensor]], Sequence[Tensor]],
    like: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """One step on tensors: the output and the next state. Differentiable as often as torch's own operations are.

    Args:
        program: the step.
        leaf: what a leaf stands for, from its group and number.
        further: a further product, from its number and what enters it.
        like: (batch, hidden), of the shape that results have.
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
    """The places that computing `roots` visits, from known ones on, which are visited and not looked behind."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        place = waiting.pop()
        if place not in seen:
            seen.add(place)
            if place not in known:
                waiting.extend(values[place].arguments)
    return seen
