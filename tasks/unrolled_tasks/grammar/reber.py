"""Strings of the Reber grammar: plain, embedded, and concatenated to a stream."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from unrolled.training.data.base import DataError
from unrolled.training.data.generated import Draw, Example, Problem

SYMBOLS = "BTSXPVE"

# The edges of Reber's graph (Reber 1967): from a node, by a symbol, to the next one. The string ends at node 6.
_EDGES: Mapping[int, Mapping[str, int]] = {
    0: {"T": 1, "P": 2},
    1: {"S": 1, "X": 3},
    2: {"T": 2, "V": 4},
    3: {"X": 2, "S": 5},
    4: {"P": 3, "V": 5},
    5: {"E": 6},
}


@dataclass(frozen=True, kw_only=True)
class Reber(Problem):
    """Strings that a random walk along the edges of Reber's graph spells; each edge of a node is equally likely.

    An embedded string is B, T or P, a whole string of the grammar, the same T or P, and E: the symbol before the last
    repeats the second one, and nothing in between tells which. The network reads a string and predicts its next symbol
    at each step. As in Hochreiter & Schmidhuber 1997, experiment 1, a prediction is right if the outputs of the
    possible next symbols are the most active ones.

    Attributes:
        embedded: embedded strings.
        stream: number of symbols of a stream of concatenated strings, without a mark where one begins besides its B
            (the continual embedded Reber grammar, Gers, Schmidhuber & Cummins 2000); None for one string.
        test_stream: number of symbols of a stream of the test; None: the same.

    Raises:
        DataError: a stream without symbols, or a length of the test without one of training.
    """

    embedded: bool = True
    stream: int | None = None
    test_stream: int | None = None

    def __post_init__(self) -> None:
        if any(length is not None and length < 1 for length in (self.stream, self.test_stream)):
            raise DataError(
                f"stream={self.stream}, test_stream={self.test_stream}: expected 1 or more symbols, or null"
            )
        if self.stream is None and self.test_stream is not None:
            raise DataError(f"test_stream={self.test_stream} needs stream, the number of symbols in training")

    @property
    def names(self) -> str:
        """See `Problem.names`."""
        return SYMBOLS

    @property
    def outputs(self) -> str:
        """See `Problem.outputs`."""
        return SYMBOLS

    def draw(self, random: Draw, split: str, index: int) -> Example:
        """See `Problem.draw`."""
        if self.stream is None:
            walked = list(self.walk(random))
        else:
            length = self.test_stream if split == "test" and self.test_stream is not None else self.stream
            walked = []
            while len(walked) <= length:
                walked += self.walk(random)
            walked = walked[: length + 1]
        ids = np.array([SYMBOLS.index(symbol) for symbol, _ in walked], dtype=np.int64)
        legal = np.array([[symbol in possible for symbol in SYMBOLS] for _, possible in walked], dtype=np.float32)
        return Example(ids[:-1], ids[1:], truth=legal[1:])

    def walk(self, random: Draw) -> Iterator[tuple[str, str]]:
        """Yields the symbols of a string, each with all that could stand in its place."""
        yield "B", "B"
        outer = "TP"[random.integers(2)] if self.embedded else ""
        if outer:
            yield outer, "TP"
            yield "B", "B"
        node = 0
        while node in _EDGES:
            possible = "".join(_EDGES[node])
            symbol = possible[random.integers(len(possible))] if len(possible) > 1 else possible
            yield symbol, possible
            node = _EDGES[node][symbol]
        if outer:
            yield outer, outer
            yield "E", "E"

    def right(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """See `Problem.right`: every legal symbol is more probable than all others."""
        legal = truth > 0.5
        return outputs.masked_fill(~legal, 2.0).amin(-1) > outputs.masked_fill(legal, -1.0).amax(-1)
