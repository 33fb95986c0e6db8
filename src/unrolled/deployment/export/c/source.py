"""A C file under construction: arrays of weights, the state, functions, and the helpers that they call.

In all its text, $ stands for the name of the network, and $$ for the same in capitals.
"""

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.deployment.export.c.runtime import HELPERS
from unrolled.deployment.export.int8 import quantized

_PER_LINE = 10


class Field(NamedTuple):
    """A field of the state: floats or ints, with the name of an array, or a number, that it begins with."""

    type: str
    name: str
    size: int
    initial: str


class Source:
    """The parts of a C file.

    Args:
        int8: whether matrices are stored as 8-bit integers with a scale for each row.

    Attributes:
        weight_bytes: the bytes of all constant arrays.
        stack: the bytes of the arrays of each function.
    """

    def __init__(self, *, int8: bool = False) -> None:
        self.int8 = int8
        self.arrays: list[str] = []
        self.fields: list[Field] = []
        self.functions: list[str] = []
        self.weight_bytes = 0
        self.stack: dict[str, int] = {}
        self._calls: dict[str, set[str]] = {}
        self._names: dict[tuple[str, bytes], str] = {}

    def vector(self, values: Tensor) -> str:
        """Add an array of floats, and return its name."""
        values = values.detach().cpu().float().flatten()
        if not bool(values.isfinite().all()):
            raise ValueError("the weights are not finite; use an earlier checkpoint")
        return self._array("float", values, 4, [literal(number) for number in values.tolist()])

    def affine(self, weight: Tensor, bias: Tensor | None, inputs: str, outputs: str) -> str:
        """Return the call that computes outputs = weight (outputs, inputs) · inputs + bias."""
        if not self.int8:
            return self.exact(weight, bias, inputs, outputs)
        integers, scales = quantized(weight)
        arrays = f"{self._small(integers.T)}, {self.vector(scales)}, {self._bias(bias)}"
        return f"$_affine_int8({arrays}, {inputs}, {weight.shape[1]}, {weight.shape[0]}, {outputs});"

    def exact(self, weight: Tensor, bias: Tensor | None, inputs: str, outputs: str) -> str:
        """Return the same call with weights in float32."""
        arrays = f"{self.vector(weight.T)}, {self._bias(bias)}"
        return f"$_affine({arrays}, {inputs}, {weight.shape[1]}, {weight.shape[0]}, {outputs});"

    def row(self, table: Tensor, index: str, outputs: str) -> str:
        """Return the call that copies a row of a table."""
        if not self.int8:
            return f"$_row({self.vector(table)}, {index}, {table.shape[1]}, {outputs});"
        integers, scales = quantized(table)
        return f"$_row_int8({self._small(integers)}, {self.vector(scales)}, {index}, {table.shape[1]}, {outputs});"

    def column(self, weight: Tensor, index: str, outputs: str) -> str:
        """Return the call that copies a row of a matrix that `affine` multiplies with, too, and stores by columns."""
        rows, columns = weight.shape
        if not self.int8:
            return f"$_column({self.vector(weight.T)}, {rows}, {index}, {columns}, {outputs});"
        integers, scales = quantized(weight)
        arrays = f"{self._small(integers.T)}, {self.vector(scales)}"
        return f"$_column_int8({arrays}, {rows}, {index}, {columns}, {outputs});"

    def state(self, initial: Tensor, name: str) -> str:
        """Add floats to the state, and return the expression for them in functions that get `state`."""
        values = initial.detach().float().flatten()
        same = bool((values == values[0]).all())
        self.fields.append(
            Field("float", name, len(values), literal(values[0].item()) if same else self.vector(values))
        )
        return f"state->{name}"

    def counter(self, initial: int, name: str) -> str:
        """Add an int to the state, and return the expression for it."""
        self.fields.append(Field("int", name, 1, str(initial)))
        return f"state->{name}[0]"

    def function(self, signature: str, body: "Body") -> None:
        """Add a function, whose signature has the storage class and ends with its parameters."""
        used = "\n".join(body.lines)
        names = re.findall(r"(\w+)(?=[,)])", signature)
        unused = [f"(void){name};" for name in names if not re.search(rf"\b{name}\b", used)]
        lines = "\n".join(f"  {line}" for line in (*unused, *body.lines))
        self.functions.append(f"{signature} {{\n{lines}\n}}")
        name = re.findall(r"\$_(\w+)\(", signature)[0]
        self.stack[name] = 4 * body.floats
        self._calls[name] = set(re.findall(r"\$_(\w+)\(", used))

    @property
    def stack_bytes(self) -> int:
        """The bytes of the arrays of a function and of those that it calls, of the function that needs most."""

        def needed(name: str) -> int:
            inner = (needed(each) for each in self._calls[name] if each in self.stack)
            return self.stack[name] + max(inner, default=0)

        return max(map(needed, self.stack))

    @property
    def state_bytes(self) -> int:
        """The bytes of the state."""
        return 4 * sum(field.size for field in self.fields)

    def init(self) -> str:
        """Return the definition of the function that sets the state to what it is before the first step."""
        lines = [line for field in self.fields for line in _initialized(field)]
        return "\n".join(["void $_init($_state *state) {", *lines, "}"])

    def helpers(self) -> Iterator[str]:
        """Yield the definitions of the helpers that functions call, each after those that it calls itself."""
        text = "\n".join(self.functions)
        wanted: set[str] = set()
        waiting = called(text)
        while waiting:
            name = waiting.pop()
            wanted.add(name)
            waiting |= called(HELPERS[name]) - wanted
        yield from (definition for name, definition in HELPERS.items() if name in wanted)

    def integers(self, numbers: Sequence[int]) -> str:
        """Add an array of ints, and return its name."""
        return self._array("int", torch.tensor(numbers, dtype=torch.int32), 4, [str(number) for number in numbers])

    def _bias(self, bias: Tensor | None) -> str:
        return "0" if bias is None else self.vector(bias)

    def _small(self, values: Tensor) -> str:
        return self._array("signed char", values, 1, [str(number) for number in values.flatten().tolist()])

    def _array(self, kind: str, values: Tensor, width: int, texts: list[str]) -> str:
        key = kind, values.contiguous().numpy().tobytes()
        if key not in self._names:  # tied weights are stored once
            self._names[key] = f"$_w{len(self._names)}"
            lines = (", ".join(texts[at : at + _PER_LINE]) for at in range(0, len(texts), _PER_LINE))
            content = ",\n".join(f"  {line}" for line in lines)
            self.arrays.append(f"static const {kind} {self._names[key]}[{len(texts)}] = {{\n{content}\n}};")
            self.weight_bytes += width * len(texts)
        return self._names[key]


class Body:
    """The lines of a function, and the floats of its arrays."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.floats = 0
        self._count = 0

    def array(self, size: int, name: str | None = None) -> str:
        """Declare an array of floats, and return its name."""
        name = name or f"v{self._count}"
        self._count += 1
        self.floats += size
        self.lines.append(f"float {name}[{size}];")
        return name

    def each(self, size: int, *statements: str) -> None:
        """Add a loop of j over a size."""
        self.lines += [f"for (int j = 0; j < {size}; j++) {{", *(f"  {line}" for line in statements), "}"]

    def add(self, *lines: str) -> None:
        """Add lines."""
        self.lines += lines


def called(text: str) -> set[str]:
    """Return the names of the helpers that a text calls."""
    return {name for name in re.findall(r"\$_(\w+)\(", text) if name in HELPERS}


def literal(number: float) -> str:
    """Return a float in C, from which the compiler reads exactly the same float32."""
    if math.isnan(number):
        return "NAN"
    if math.isinf(number):
        return "INFINITY" if number > 0 else "-INFINITY"
    text = f"{number:.9g}"
    return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"


def string(text: str) -> str:
    """Return a string literal in C, in UTF-8."""
    plain = set(range(32, 127)) - set(b'"\\?$')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'


def comment(text: str) -> str:
    """Return a comment in C, in several lines."""
    plain = re.sub(r"[^ -~]|[?\\]|\*(?=/)|/(?=\*)", "_", text)  # what would end it, or continue a line
    return "/* " + "\n * ".join(textwrap.wrap(plain, 100)) + " */"


def strings(name: str, texts: Sequence[str]) -> str:
    """Return the definition of an array of strings."""
    listed = ",\n".join(f"  {string(text)}" for text in texts)
    return f"const char *const $_{name}[{len(texts)}] = {{\n{listed}\n}};"


def _initialized(field: Field) -> list[str]:
    value = f"{field.initial}[j]" if field.initial.startswith("$") else field.initial
    if field.size == 1 and value == field.initial:
        return [f"  state->{field.name}[0] = {value};"]
    return [f"  for (int j = 0; j < {field.size}; j++) state->{field.name}[j] = {value};"]
