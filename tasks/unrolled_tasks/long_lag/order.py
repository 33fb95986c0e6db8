"""The order of a few symbols far from each other (Hochreiter & Schmidhuber 1997, experiment 6)."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from unrolled.training.data.base import DataError
from unrolled.training.data.generated import Criterion, Draw, Example, Problem

_PLACES = {2: ((10, 20), (50, 60)), 3: ((10, 20), (33, 43), (66, 76))}  # by the number of relevant symbols
_CLASSES = {2: "QRSU", 3: "QRSUVABC"}  # XX, XY, YX, YY; XXX, XXY, …


@dataclass(frozen=True, kw_only=True)
class TemporalOrder(Problem):
    """Tell the order of two (6a) or three (6b) symbols X or Y.

    A sequence of 100 to 110 symbols begins with E and ends with B. All others are a, b, c or d, except X or Y at random
    places: two, between the 10th and the 20th and between the 50th and the 60th; or three, between 10 and 20, 33 and
    43, 66 and 76. After the last symbol the network tells which of 4 or 8 orders it was. A sequence is right if the
    absolute error of each output is below 0.3; the problem is solved if all are, and the mean error is below 0.1.

    Attributes:
        relevant: number of symbols X or Y, 2 or 3.

    Raises:
        DataError: another number.
    """

    relevant: int = 2

    def __post_init__(self) -> None:
        if self.relevant not in _PLACES:
            raise DataError(f"relevant={self.relevant}: expected 2 or 3")

    @property
    def criterion(self) -> Criterion:
        """See `Problem.criterion`."""
        return Criterion(tolerance=0.3, max_error=0.1)

    @property
    def names(self) -> str:
        """See `Problem.names`."""
        return "abcdXYEB"

    @property
    def outputs(self) -> str:
        """See `Problem.outputs`."""
        return _CLASSES[self.relevant]

    @property
    def orders(self) -> dict[str, str]:
        """The class of each order of symbols."""
        return dict(zip(map("".join, product("XY", repeat=self.relevant)), self.outputs, strict=True))

    def draw(self, random: Draw, split: str, index: int) -> Example:
        """See `Problem.draw`."""
        length = int(random.integers(100, 111))
        symbols = random.integers(4, size=length)
        symbols[[0, -1]] = self.names.index("E"), self.names.index("B")
        order = random.integers(2, size=self.relevant)  # X or Y
        # The paper counts from 1.
        places = [int(random.integers(first, last + 1)) - 1 for first, last in _PLACES[self.relevant]]
        symbols[places] = self.names.index("X") + order
        target = self.outputs.index(self.orders["".join("XY"[each] for each in order)])
        return Example(symbols, np.array([target]), np.array([length - 1]))
