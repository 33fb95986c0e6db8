"""The pointwise maths of a cell as a program on numbers: one step and its derivative.

A program knows no batch, no units and no time. `evaluate` runs it on tensors, which is the definition that the printed
C++ is tested against.
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
    gradients: dict[str, tuple[int, ...]]  # of the groups projected, recurrent, states, own


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


def evaluate(program: Program, leaf: Callable[[str, int], Tensor], like: Tensor) -> tuple[Tensor, list[Tensor]]:
    """One step on tensors: the output and the next state. Differentiable as often as torch's own operations are."""
    known: dict[int, Tensor] = {}
    for place in sorted(reached(program.values, (program.output, *program.states), frozenset())):
        value = program.values[place]
        if value.operation == "leaf":
            known[place] = leaf(*cast(tuple[str, int], value.detail))
        elif value.operation == "constant":
            known[place] = like.new_tensor(float.fromhex(cast(str, value.detail)))
        elif value.operation in ("true", "false"):
            known[place] = torch.tensor(value.operation == "true", device=like.device)
        else:
            known[place] = _TORCH[value.operation](*(known[a] for a in value.arguments))
    shape = like.shape
    return known[program.output].expand(shape), [known[place].expand(shape) for place in program.states]


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
