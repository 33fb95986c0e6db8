"""Lowers traced graphs of torch's operators to programs, with common subexpressions merged.

A tensor whose last axis has the size of the hidden units is one value. If the axis is several times as long, the tensor
is a list of values, one per block, and operators are applied block by block. If its size is 1, it is a value per row.
"""

import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from unrolled.backends.compiled.program import BINARY, LOGIC, UNARY, Value, is_logical

_SAME = {"clone", "detach", "alias", "lift_fresh_copy", "expand", "view", "_unsafe_view", "view_as", "contiguous"}
_WIDE = {"cat", "split", "split_with_sizes", "slice", "sum", "mean"}
_RENAMED = {"sgn": "sign", "bitwise_and": "logical_and", "bitwise_or": "logical_or", "bitwise_not": "logical_not"}


class NotPointwiseError(Exception):
    """A step that is not elementwise, or uses an operator that can't be lowered."""


class Lowering:
    """Lowers a traced graph to values."""

    def __init__(self, graph: GraphModule, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self.graph = graph
        self.shape = shape
        self.dtype = dtype
        self.values: list[Value] = []
        self.places: dict[Value, int] = {}

    def read(self, leaves: Sequence[tuple[str, int]]) -> tuple[tuple[Value, ...], list[int]]:
        known: dict[Node, Any] = {}  # a place, or places of blocks
        remaining = iter(leaves)
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                known[node] = self.add(Value("leaf", (), next(remaining)))
            elif node.op == "get_attr":
                known[node] = self.constant(self._held(node))
            elif node.op == "output":
                results = [known[result] for result in node.args[0]]
                return tuple(self.values), [self.number(result) for result in results]
            elif node.target is operator.getitem:
                known[node] = known[node.args[0]][node.args[1]]
            else:
                arguments = [known[a] if isinstance(a, Node) else _Given(a) for a in node.args]
                known[node] = self.call(node, arguments, known)
        raise NotPointwiseError("its trace has no output")

    def _held(self, node: Node) -> float | bool:
        held = getattr(self.graph, cast(str, node.target))
        if not isinstance(held, Tensor) or held.numel() != 1 or held.requires_grad:
            raise NotPointwiseError("its step uses a tensor that is neither an argument nor a parameter of the cell")
        return held.item()

    def add(self, value: Value) -> int:
        if value not in self.places:
            self.places[value] = len(self.values)
            self.values.append(value)
        return self.places[value]

    def constant(self, number: float | bool) -> int:
        # 1.0 == True and 0.0 == -0.0, so the key must contain the type and the sign.
        return self.add(Value("true" if number else "false") if isinstance(number, bool) else _constant(float(number)))

    def number(self, place: int) -> int:
        """Convert a boolean value to 1 or 0."""
        if not is_logical(self.values[place]):
            return place
        return self.add(Value("where", (place, self.constant(1.0), self.constant(0.0))))

    def truth(self, place: int) -> int:
        if is_logical(self.values[place]):
            return place
        return self.add(Value("ne", (place, self.constant(0.0))))

    def operate(self, operation: str, *arguments: int) -> int:
        """Add an operation on values, which are converted to numbers or booleans as it requires."""
        if operation in LOGIC:
            return self.add(Value(operation, tuple(map(self.truth, arguments))))
        if operation == "where":
            condition, *branches = arguments
            return self.add(Value("where", (self.truth(condition), *map(self.number, branches))))
        return self.add(Value(operation, tuple(map(self.number, arguments))))

    def call(self, node: Node, arguments: list[Any], known: dict[Node, Any]) -> Any:
        name = cast(Any, node.target)._schema.name.removeprefix("aten::") if hasattr(node.target, "_schema") else ""
        for value in made if isinstance(made := node.meta.get("val"), list | tuple) else [made]:
            shape = tuple(value.shape) if isinstance(value, Tensor) else None
            if shape != () and (
                shape is None or len(shape) != 2 or shape[0] != self.shape[0] or not self.blocks(shape)
            ):
                raise NotPointwiseError(
                    f"its step uses {name or node.target}, of the shape {shape}, which mixes rows or units"
                )
        if name in _WIDE:
            return getattr(self, f"on_{name}")(node, known)
        several = max((len(a) for a in arguments if isinstance(a, list)), default=0)
        if several:
            each = ([a[n] if isinstance(a, list) else a for a in arguments] for n in range(several))
            return [self.call_block(node, name, of_block) for of_block in each]
        return self.call_block(node, name, arguments)

    def blocks(self, shape: Sequence[int]) -> int:
        """Return the number of blocks of units in a shape, 1 for a value per row, or 0 for any other shape."""
        return 1 if shape[-1] == 1 else 0 if shape[-1] % self.shape[1] else shape[-1] // self.shape[1]

    def split_up(self, node: Node, known: dict[Node, Any]) -> list[int]:
        """Return the places of a node's values, block by block."""
        places = known[node]
        return places if isinstance(places, list) else [places] * self.blocks(node.meta["val"].shape)

    def on_cat(self, node: Node, known: dict[Node, Any]) -> Any:
        parts = cast("list[Node]", node.args[0])
        if any(part.meta["val"].shape[-1] % self.shape[1] for part in parts):
            raise NotPointwiseError("its step concatenates tensors whose size isn't its number of units")
        joined = [place for part in parts for place in self.split_up(part, known)]
        return joined if len(joined) > 1 else joined[0]

    def on_split(self, node: Node, known: dict[Node, Any]) -> list[Any]:
        remaining = iter(self.split_up(cast(Node, node.args[0]), known))
        parts = [[next(remaining) for _ in range(self.blocks(part.shape))] for part in node.meta["val"]]
        return [part if len(part) > 1 else part[0] for part in parts]

    on_split_with_sizes = on_split

    def on_slice(self, node: Node, known: dict[Node, Any]) -> Any:
        _, dim, first, last, step = (*node.args, *(0, 0, None, 1)[len(node.args) - 1 :])
        places = self.split_up(cast(Node, node.args[0]), known)
        width = cast(Node, node.args[0]).meta["val"].shape[-1]
        if dim in (0, -2) and tuple(node.meta["val"].shape) == tuple(cast(Node, node.args[0]).meta["val"].shape):
            return known[cast(Node, node.args[0])]
        begin, end = cast(int, first or 0), min(cast(int, last if last is not None else width), width)
        begin, end = (border + width if border < 0 else border for border in (begin, end))
        if dim not in (1, -1) or step != 1 or begin % self.shape[1] or end % self.shape[1]:
            raise NotPointwiseError("its step uses some of its units separately")
        part = places[begin // self.shape[1] : end // self.shape[1]]
        return part if len(part) > 1 else part[0]

    def on_sum(self, node: Node, known: dict[Node, Any]) -> int:
        source = cast(Node, node.args[0])
        dims, keep = (*node.args[1:], None, False)[:2]
        if dims not in ([1], [-1]) or not keep:
            raise NotPointwiseError("its step sums over other axes than a row's units (dim=-1, keepdim=True)")
        if source.meta["val"].shape[-1] == 1:
            return known[source]
        totals = [self.operate("total", self.number(place)) for place in self.split_up(source, known)]
        return functools.reduce(lambda one, other: self.operate("add", one, other), totals)

    def on_mean(self, node: Node, known: dict[Node, Any]) -> int:
        blocks = self.blocks(cast(Node, node.args[0]).meta["val"].shape)
        count = self.operate("mul", self.add(Value("size")), self.constant(float(blocks)))
        if cast(Node, node.args[0]).meta["val"].shape[-1] == 1:
            return known[cast(Node, node.args[0])]
        return self.operate("div", self.on_sum(node, known), count)

    def call_block(self, node: Node, name: str, arguments: list[Any]) -> int:
        name = _RENAMED.get(name, name)
        places = [a if isinstance(a, int) else self.constant(a.value) for a in arguments if _is_value(a)]
        if name in BINARY and len(places) == 2:
            alpha = node.kwargs.get("alpha", 1)
            if alpha != 1:
                places[1] = self.operate("mul", places[1], self.constant(float(cast(float, alpha))))
            if name == "div" and node.kwargs.get("rounding_mode") is not None:
                raise NotPointwiseError("its step uses div with a rounding mode")
            return self.operate(name, *places)
        if name in UNARY and len(places) == 1:
            return self.operate(name, *places)
        if name in _SAME:
            return places[0]
        special = getattr(self, f"on_{name}", None)
        if special is None or name in _WIDE:
            raise NotPointwiseError(
                f"its step uses {name or node.target}, which is not a supported elementwise operation"
            )
        return special(node, arguments, places)

    def on_rsub(self, node: Node, _: list[Any], places: list[int]) -> int:
        if node.kwargs.get("alpha", 1) != 1:
            raise NotPointwiseError("its step uses rsub with alpha")
        return self.operate("sub", places[1], places[0])

    def on_relu(self, _: Node, __: list[Any], places: list[int]) -> int:
        return self.operate("maximum", places[0], self.constant(0.0))

    def on_reciprocal(self, _: Node, __: list[Any], places: list[int]) -> int:
        return self.operate("div", self.constant(1.0), places[0])

    def on_rsqrt(self, _: Node, __: list[Any], places: list[int]) -> int:
        return self.operate("div", self.constant(1.0), self.operate("sqrt", places[0]))

    def on_where(self, _: Node, __: list[Any], places: list[int]) -> int:
        return self.operate("where", *places)

    def on_clamp(self, node: Node, arguments: list[Any], _: list[int]) -> int:
        bounds = [*arguments[1:], _Given(None), _Given(None)][:2]
        bounds = [
            _Given(node.kwargs[key]) if key in node.kwargs else b for key, b in zip(("min", "max"), bounds, strict=True)
        ]
        place = arguments[0]
        for operation, bound in zip(("maximum", "minimum"), bounds, strict=True):
            if isinstance(bound, int) or bound.value is not None:
                place = self.operate(operation, place, bound if isinstance(bound, int) else self.constant(bound.value))
        return place

    def on_clamp_min(self, _: Node, __: list[Any], places: list[int]) -> int:
        return self.operate("maximum", *places)

    def on_clamp_max(self, _: Node, __: list[Any], places: list[int]) -> int:
        return self.operate("minimum", *places)

    def on_pow(self, _: Node, arguments: list[Any], places: list[int]) -> int:
        exponent = arguments[1].value if isinstance(arguments[1], _Given) else None
        if exponent == 2:
            return self.operate("mul", places[0], places[0])
        if exponent == 3:
            return self.operate("mul", self.operate("mul", places[0], places[0]), places[0])
        if exponent == 0.5:
            return self.operate("sqrt", places[0])
        return places[0] if exponent == 1 else self.operate("pow", *places)

    def on_full_like(self, _: Node, arguments: list[Any], __: list[int]) -> int:
        return self.constant(arguments[1].value)

    def on_full(self, _: Node, arguments: list[Any], __: list[int]) -> int:
        return self.constant(arguments[1].value)

    def on_scalar_tensor(self, _: Node, arguments: list[Any], __: list[int]) -> int:
        return self.constant(arguments[0].value)

    def on_zeros_like(self, _: Node, __: list[Any], ___: list[int]) -> int:
        return self.constant(0.0)

    on_zeros = on_new_zeros = on_zeros_like

    def on_ones_like(self, _: Node, __: list[Any], ___: list[int]) -> int:
        return self.constant(1.0)

    on_ones = on_new_ones = on_ones_like

    def on_empty_permuted(self, _: Node, __: list[Any], ___: list[int]) -> int:
        return self.constant(float("nan"))  # torch uses these only for their shape

    on_empty_like = on_new_empty = on_empty_permuted

    def on__to_copy(self, node: Node, _: list[Any], places: list[int]) -> int:
        dtype = node.kwargs.get("dtype", self.dtype)
        if dtype == torch.bool:
            return self.truth(places[0])
        if dtype != self.dtype:
            raise NotPointwiseError(f"its step computes in {dtype} with inputs in {self.dtype}")
        return self.number(places[0])


class _Given(NamedTuple):
    """An argument that isn't a tensor."""

    value: Any


def _is_value(argument: Any) -> bool:
    return isinstance(argument, int) or isinstance(argument.value, bool | int | float)


def _constant(number: float) -> Value:
    return Value("constant", (), number.hex())
