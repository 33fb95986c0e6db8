"""What a cell shows to a recorder while it is recorded; see `unrolled.inspection`."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor


class Observer(Protocol):
    """Receives the values of one cell. It is the cell's attribute `observer` while the cell is recorded.

    A recorded cell runs in the loop backend, without recomputation, so each of its steps is one call of `step`.
    """

    def tapped(self, name: str, value: Tensor) -> None:
        """Receive an intermediate value of the present step, (rows, …)."""

    def step(self, cell: Any, projected: Tensor, state: Any, noise: Any) -> tuple[Tensor, Any]:
        """Run `cell.step` with the given arguments, and return its results.

        Args:
            cell: the observed cell, or a copy of it with computed weights.
            projected: see `Cell.step` for this and the others.
            state: the state before the step.
            noise: the noise of the unroll.
        """
        ...

    def sequences(self, places: Tensor, inputs: Tensor, *, reverse: bool) -> AbstractContextManager[Tensor]:
        """Return a context within which the cell runs over whole sequences, with the inputs that it is to read.

        Args:
            places: (rows, steps) int64: for each row and step the place in (batch × time), counted from 1; 0 for a
                step of the padding. Each place occurs once.
            inputs: (batch, time, input), zero in the padding.
            reverse: whether the cell runs from each row's last valid step to its first.
        """
        ...

    def steps(self, places: Tensor) -> AbstractContextManager[None]:
        """Return a context within which the cell is stepped through sequences whose inputs aren't known before.

        Args:
            places: (batch, time); see `sequences`.
        """
        ...
