"""Traced graphs of torch's operators read as programs, in which equal values are one."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from unrolled.backends.compiled.program import BINARY, LOGIC, UNARY, Value, is_logical

_SAME = {"clone", "detach", "alias", "lift_fresh_copy", "expand", "view", "_unsafe_view", "view_as", "contiguous"}
_RENAMED = {"sgn": "sign", "bitwise_and": "logical_and", "bitwise_or": "logical_or", "bitwise_not": "logical_not"}


class NotPointwiseError(Exception):
    """Mathematics that no program on single numbers can do, or none that this reader knows."""


class Reader:
    """Reads a traced graph into values."""

    def __init__(self, graph: GraphModule, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self.graph = graph
        self.shape = shape
        self.dtype = dtype
        self.values: list[Value] = []
        self.places: dict[Value, int] = {}

    def read(self, leaves: Sequence[tuple[str, int]]) -> tuple[tuple[Value, ...], list[int]]:
        known: dict[Node, int] = {}
        remaining = iter(leaves)
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                known[node] = self.add(Value("leaf", (), next(remaining)))
            elif node.op == "get_attr":
                known[node] = self.constant(self._held(node))
            elif node.op == "output":
                results = [known[result] for result in node.args[0]]
                return tuple(self.values), [self.number(result) for result in results]
            else:
                arguments = [known[a] if isinstance(a, Node) else _Given(a) for a in node.args]
                known[node] = self.call(node, arguments)
        raise NotPointwiseError("its trace has no end")

    def _held(self, node: Node) -> float | bool:
        held = getattr(self.graph, cast(str, node.target))
        if not isinstance(held, Tensor) or held.numel() != 1 or held.requires_grad:
            raise NotPointwiseError("its step uses a tensor that is neither handed in nor a parameter of the cell")
        return held.item()

    def add(self, value: Value) -> int:
        if value not in self.places:
            self.places[value] = len(self.values)
            self.values.append(value)
        return self.places[value]

    def constant(self, number: float | bool) -> int:
        # 1.0 == True and 0.0 == -0.0, so what a constant is must stand in its key.
        return self.add(Value("true" if number else "false") if isinstance(number, bool) else _constant(float(number)))

    def number(self, place: int) -> int:
        """A truth value as 1 or 0."""
        if not is_logical(self.values[place]):
            return place
        return self.add(Value("where", (place, self.constant(1.0), self.constant(0.0))))

    def truth(self, place: int) -> int:
        if is_logical(self.values[place]):
            return place
        return self.add(Value("ne", (place, self.constant(0.0))))

    def operate(self, operation: str, *arguments: int) -> int:
        """An operation on values, which are made numbers or truth values as it wants them."""
        if operation in LOGIC:
            return self.add(Value(operation, tuple(map(self.truth, arguments))))
        if operation == "where":
            condition, *branches = arguments
            return self.add(Value("where", (self.truth(condition), *map(self.number, branches))))
        return self.add(Value(operation, tuple(map(self.number, arguments))))

    def call(self, node: Node, arguments: list[Any]) -> int:
        name = cast(Any, node.target)._schema.name.removeprefix("aten::") if hasattr(node.target, "_schema") else ""
        shape = tuple(node.meta["val"].shape) if "val" in node.meta else None
        if shape not in (self.shape, ()):
            raise NotPointwiseError(
                f"its step uses {name or node.target}, of the shape {shape}, which mixes rows or units"
            )
        name = _RENAMED.get(name, name)
        places = [a if isinstance(a, int) else self.constant(a.value) for a in arguments if _is_value(a)]
        if name in BINARY and len(places) == 2:
            alpha = node.kwargs.get("alpha", 1)
            if alpha != 1:
                places[1] = self.operate("mul", places[1], self.constant(float(cast(float, alpha))))
            if name == "div" and node.kwargs.get("rounding_mode") is not None:
                raise NotPointwiseError("its step rounds a quotient")
            return self.operate(name, *places)
        if name in UNARY and len(places) == 1:
            return self.operate(name, *places)
        if name in _SAME:
            return places[0]
        special = getattr(self, f"on_{name}", None)
        if special is None:
            raise NotPointwiseError(f"its step uses {name or node.target}, which is no elementwise maths known here")
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
        return self.constant(float("nan"))  # torch makes these to be filled, and asks for their shape alone

    on_empty_like = on_new_empty = on_empty_permuted

    def on__to_copy(self, node: Node, _: list[Any], places: list[int]) -> int:
        dtype = node.kwargs.get("dtype", self.dtype)
        if dtype == torch.bool:
            return self.truth(places[0])
        if dtype != self.dtype:
            raise NotPointwiseError(f"its step computes in {dtype} on inputs in {self.dtype}")
        return self.number(places[0])


class _Given(NamedTuple):
    """An argument that is no tensor."""

    value: Any


def _is_value(argument: Any) -> bool:
    return isinstance(argument, int) or isinstance(argument.value, bool | int | float)


def _constant(number: float) -> Value:
    return Value("constant", (), number.hex())
