"""States as values: what a recurrent network carries from one step to the next.

A state is a tensor, or any nesting of tuples and named tuples of states; None stands for nothing to carry. Every tensor
has batch on axis 0. From that one rule follow the reordering of hypotheses (`select`), padding and new sequences
(`where`), the border of truncated backpropagation (`detach`), and saving (`leaves`, `rebuild`). What a network takes as
its state has the structure, shapes and dtypes of its initial one (`outline`, `check`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from unrolled.shapes import ShapeError, expect
from unrolled.wording import article, counted

S = TypeVar("S")


class HiddenState(NamedTuple):
    """What Elman networks and gated recurrent units carry: h (batch, hidden)."""

    h: Tensor


class LSTMState(NamedTuple):
    """What a long short-term memory carries: h and c, (batch, hidden) each, in torch's order."""

    h: Tensor
    c: Tensor


def map_state(function: Callable[..., Tensor], state: S, *others: S) -> S:
    """Apply a function to each tensor of a state, beside those at the same places of other states.

    Raises:
        TypeError: a node that is neither a tensor nor a tuple nor None.
        ValueError: states of different structure.
    """
    return cast(S, _map(function, state, others))


def _map(function: Callable[..., Tensor], node: Any, others: tuple[Any, ...]) -> Any:
    if isinstance(node, Tensor):
        if not all(isinstance(other, Tensor) for other in others):
            raise ValueError("the states differ in structure: a tensor stands where another state has none")
        return function(node, *others)
    if node is None:
        if any(other is not None for other in others):
            raise ValueError("the states differ in structure: one has nothing where another has something")
        return None
    children = _children(node)
    for other in others:
        if type(other) is not type(node) or len(other) != len(children):
            raise ValueError(f"the states differ in structure: {_describe(node)} beside {_describe(other)}")
    columns = zip(*(children, *others), strict=True)
    return _like(node, (_map(function, column[0], column[1:]) for column in columns))


def _children(node: Any) -> tuple[Any, ...]:
    if not isinstance(node, tuple):
        raise TypeError(f"a state holds tensors and tuples of them, not {type(node).__name__}")
    return cast(tuple[Any, ...], node)


def _like(node: Any, children: Iterable[Any]) -> Any:
    return type(node)(*children) if hasattr(node, "_fields") else tuple(children)


def _describe(node: Any) -> str:
    kind = type(node).__name__
    return f"{kind} of {len(_children(node))}" if isinstance(node, tuple) else kind


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a state in a fixed order, which is the form in which checkpoints keep it."""
    if isinstance(state, Tensor):
        return [state]
    if state is None:
        return []
    return [leaf for child in _children(state) for leaf in leaves(child)]


def rebuild(like: S, tensors: Iterable[Tensor]) -> S:
    """A state of the structure of `like` from its tensors: the inverse of `leaves`.

    Raises:
        ValueError: too few tensors, too many, or one of another shape.
    """
    expected, given = leaves(like), list(tensors)
    if len(given) != len(expected):
        raise ValueError(f"the state has {len(expected)} tensors, {len(given)} are given")
    for position, (leaf, model) in enumerate(zip(given, expected, strict=True)):
        if leaf.shape != model.shape:
            raise ValueError(
                f"tensor {position} of the state has the shape {tuple(model.shape)}, not {tuple(leaf.shape)}"
            )
    remaining = iter(given)

    def take(_: Tensor) -> Tensor:
        return next(remaining)

    return map_state(take, like)


class Leaf(NamedTuple):
    """What every state of a network has in the place of one tensor."""

    features: tuple[int, ...]  # the axes after the batch
    dtype: torch.dtype | None  # None: the inputs' own


def outline(state: Any, *, like: Tensor) -> Any:
    """A state's structure with a `Leaf` in the place of each tensor: what `check` compares other states with.

    Args:
        state: an initial state, of any batch.
        like: what that state was made like.
    """

    def known(leaf: Tensor) -> Any:
        return Leaf(tuple(leaf.shape[1:]), None if leaf.dtype == like.dtype else leaf.dtype)

    return map_state(known, state)


_SINGLE_OR_HALF = (torch.float32, torch.bfloat16, torch.float16)


def check(state: Any, expected: Any, *, like: Tensor, name: str = "state") -> None:
    """Check a state before anything computes with it: a kernel would read past the end of a state that is too wide.

    Where the inputs are in half precision, or autocast is on, a state may be in single or half precision: some layers
    keep theirs unrounded.

    Args:
        state: what was given.
        expected: the `outline` of the network's own.
        like: the inputs, (batch, ...), on the device and in the dtype that the state must have.
        name: what the error calls the state.

    Raises:
        ShapeError: a tensor of another shape than the inputs' batch and the network's sizes.
        ValueError: another structure, dtype or device.
    """
    dtype, device = like.dtype, like.device
    if dtype in _SINGLE_OR_HALF and (dtype != torch.float32 or torch.is_autocast_enabled(device.type)):
        dtypes = _SINGLE_OR_HALF
    else:
        dtypes = (dtype,)
    if not _fits(state, expected, like.shape[0], dtypes, device):
        _refuse(state, expected, like.shape[0], dtypes, device, name)


def _fits(node: Any, expected: Any, batch: int, dtypes: tuple[torch.dtype, ...], device: torch.device) -> bool:
    """Apart from `_refuse`, since it runs at every step of a search."""
    if type(expected) is Leaf:
        features, dtype = expected
        if not isinstance(node, Tensor) or node.shape != (batch, *features) or node.device != device:
            return False
        return node.dtype in dtypes if dtype is None else node.dtype == dtype
    if type(node) is not type(expected):
        return False
    if expected is not None:
        if len(node) != len(expected):
            return False
        for child, of_child in zip(node, expected, strict=True):
            if not _fits(child, of_child, batch, dtypes, device):
                return False
    return True


def _refuse(
    node: Any, expected: Any, batch: int, dtypes: tuple[torch.dtype, ...], device: torch.device, name: str
) -> None:
    """Raise an error for the first place that doesn't fit."""
    if type(expected) is Leaf:
        shape, right = (batch, *expected.features), expected.dtype or dtypes[0]
        if not isinstance(node, Tensor):
            raise ValueError(f"{name} is {_kind(node)}, expected a tensor of shape {shape}")
        if node.shape != shape:
            raise ShapeError(f"{name} has the shape {tuple(node.shape)}, expected {shape} for a batch of {batch}")
        if node.dtype not in ((right,) if expected.dtype else dtypes):
            raise ValueError(f"{name} is {node.dtype}, expected {right}; convert it with .to({right})")
        if node.device != device:
            raise ValueError(f"{name} is on {node.device}, the inputs on {device}; move it with .to('{device}')")
        return
    if type(node) is not type(expected) or (expected is not None and len(node) != len(expected)):
        raise ValueError(f"{name} is {_kind(node)}, expected {_kind(expected)}{_remedy(node, expected)}")
    fields = getattr(expected, "_fields", None)
    for place, (child, of_child) in enumerate(zip(node or (), expected or (), strict=True)):
        inner = f"{name}[{place}]" if fields is None else f"{name}.{fields[place]}"
        _refuse(child, of_child, batch, dtypes, device, inner)


def _kind(node: Any) -> str:
    if node is None:
        return "None"
    if isinstance(node, Tensor):
        return f"a tensor of shape {tuple(node.shape)}"
    fields = getattr(node, "_fields", None)
    if fields is not None:
        return f"{type(node).__name__}({', '.join(fields)})"
    kind = type(node).__name__
    return article(f"{kind} of {len(cast(Any, node))}" if isinstance(node, tuple | list) else kind)


def _remedy(node: Any, expected: Any) -> str:
    fields = getattr(expected, "_fields", None)
    if fields is not None and isinstance(node, tuple | list) and len(cast(Any, node)) == len(fields):
        return f"; write {type(expected).__name__}(*state)"
    return ""


def detach(state: S) -> S:
    """The same values, cut off from the graph that made them: the border of truncated backpropagation."""
    return map_state(Tensor.detach, state)


def select(state: S, indices: Tensor) -> S:
    """The rows `indices` (rows,) of a state, in their order; a row may come twice or not at all."""

    def reorder(leaf: Tensor) -> Tensor:
        return leaf.index_select(0, indices)

    return map_state(reorder, state)


def where(mask: Tensor, then: S, otherwise: S) -> S:
    """Row by row the state `then` where `mask` (batch,) is true, and `otherwise` where it is false.

    Raises:
        ShapeError: a mask that is not (batch,), or of another batch.
        ValueError: a mask that is not boolean, or states of different structure.
    """
    expect(mask, "batch", name="mask")
    if mask.dtype != torch.bool:
        raise ValueError(f"the mask is {mask.dtype}, expected torch.bool")

    def choose(one: Tensor, other: Tensor) -> Tensor:
        if one.shape[0] != mask.shape[0]:
            raise ShapeError(f"the mask has {counted(mask.shape[0], 'row')}, the state {one.shape[0]}")
        return torch.where(mask.view(-1, *[1] * (one.dim() - 1)), one, other)

    return map_state(choose, then, otherwise)


def state_at(states: Sequence[S], lengths: Tensor | None) -> S:
    """The state behind each row's last valid step, from the states before the first step and behind each one.

    Args:
        states: time + 1 states, the initial one first.
        lengths: (batch,) integers from 0 to time; None where every row is full.
    """
    if lengths is None:
        return states[-1]

    def pick(*leaf: Tensor) -> Tensor:
        index = lengths.to(leaf[0].device, torch.int64)
        return torch.stack(leaf)[index, torch.arange(len(index), device=index.device)]

    return map_state(pick, *states)
