"""Recurrent states as values, and the functions that work on any of them.

A state is a tensor, None, or a nested structure of tuples and named tuples of states. None stands for an empty state.
Axis 0 of every tensor is the batch. This makes it possible to reorder hypotheses (`select`), to handle padding and new
sequences (`where`), to truncate backpropagation (`detach`), and to save a state (`leaves`, `rebuild`) without knowing
the network. A state given to a network must have the structure, shapes and dtypes of its initial state (`outline`,
`check`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from unrolled.shapes import ShapeError, expect
from unrolled.wording import article, counted

S = TypeVar("S")


class HiddenState(NamedTuple):
    """The state of Elman networks and gated recurrent units: h (batch, hidden)."""

    h: Tensor


class LSTMState(NamedTuple):
    """The state of a long short-term memory: h and c, (batch, hidden) each, in torch's order."""

    h: Tensor
    c: Tensor


def map_state(function: Callable[..., Tensor], state: S, *others: S) -> S:
    """Apply a function to each tensor of a state, together with the corresponding tensors of other states.

    Raises:
        TypeError: a node that is neither a tensor nor a tuple nor None.
        ValueError: states of different structure.
    """
    return cast(S, _map(function, state, others))


def _map(function: Callable[..., Tensor], node: Any, others: tuple[Any, ...]) -> Any:
    if isinstance(node, Tensor):
        if not all(isinstance(other, Tensor) for other in others):
            raise ValueError("the states differ in structure: one has a tensor where another has none")
        return function(node, *others)
    if node is None:
        if any(other is not None for other in others):
            raise ValueError("the states differ in structure: one has None where another has a value")
        return None
    children = _children(node)
    for other in others:
        if type(other) is not type(node) or len(other) != len(children):
            raise ValueError(f"the states differ in structure: {_describe(node)} and {_describe(other)}")
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
    """Return the tensors of a state in a fixed order, the form in which checkpoints store it."""
    if isinstance(state, Tensor):
        return [state]
    if state is None:
        return []
    return [leaf for child in _children(state) for leaf in leaves(child)]


def rebuild(like: S, tensors: Iterable[Tensor]) -> S:
    """Return a state with the structure of `like` and the given tensors: the inverse of `leaves`.

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
    """The expected shape and dtype of one tensor of a state."""

    features: tuple[int, ...]  # the axes after the batch
    dtype: torch.dtype | None  # None for the dtype of the inputs


def outline(state: Any, *, like: Tensor) -> Any:
    """Return a state's structure with a `Leaf` in place of each tensor, for `check`.

    Args:
        state: an initial state of any batch size.
        like: the tensor whose dtype and device the state was made with.
    """

    def known(leaf: Tensor) -> Any:
        return Leaf(tuple(leaf.shape[1:]), None if leaf.dtype == like.dtype else leaf.dtype)

    return map_state(known, state)


_SINGLE_OR_HALF = (torch.float32, torch.bfloat16, torch.float16)


def check(state: Any, expected: Any, *, like: Tensor, name: str = "state") -> None:
    """Check the structure, shapes, dtypes and devices of a state, since native kernels read its memory unchecked.

    If the inputs have half precision, or autocast is enabled, a state may have single or half precision: some layers
    keep their states in single precision.

    Args:
        state: the state to check.
        expected: the `outline` of the network's initial state.
        like: the inputs, (batch, ...), with the device and the dtype that the state must have.
        name: the state's name in the error message.

    Raises:
        ShapeError: a tensor whose shape doesn't match the inputs' batch and the network's sizes.
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
    """Return whether a state is as expected. It is separate from `_refuse`, since it runs at every decoding step."""
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
    """Raise an error for the first tensor or tuple that is not as expected."""
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
    """Detach each tensor of a state from its graph, as truncated backpropagation through time does between chunks."""
    return map_state(Tensor.detach, state)


def select(state: S, indices: Tensor) -> S:
    """Return the rows `indices` (rows,) of a state in that order. A row may be repeated or left out."""

    def reorder(leaf: Tensor) -> Tensor:
        return leaf.index_select(0, indices)

    return map_state(reorder, state)


def where(mask: Tensor, then: S, otherwise: S) -> S:
    """Return the rows of the state `then` where `mask` (batch,) is true, and those of `otherwise` elsewhere.

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
    """Return the state after each row's last valid step, given the initial state and the state after each step.

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
