"""The base class of backends."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from unrolled.cells.base import Cell


class Backend(ABC):
    """An implementation that runs a cell over time, with the same parameters and results as `LoopBackend`.

    The inputs of a backend are zero in the padding. A backend without `reverses` is always run forwards; `unroll`
    reverses its inputs and outputs. A backend without `clears_padding` may return any values in the padding; `unroll`
    sets them to zero.
    """

    name: str
    reverses: bool = False  # supports the backward direction
    clears_padding: bool = False  # returns zeros in the padding

    @abstractmethod
    def refuses(self, cell: Cell[Any], inputs: Tensor) -> str | None:
        """Return why the backend can't run this cell, in its present mode, on these inputs; None if it can."""

    @abstractmethod
    def run(
        self, cell: Cell[Any], inputs: Tensor, state: Any, lengths: Tensor | None, reverse: bool, noise: Any
    ) -> tuple[Tensor, Any]:
        """Run a cell over at least one step.

        Args:
            cell: a cell for which `refuses` returns None.
            inputs: (batch, time, input), zero in the padding.
            state: the state before the first step.
            lengths: (batch,) int64 on the device of the inputs, 0 to time; None without padding.
            reverse: run from each row's last valid step to its first; False for a backend without `reverses`.
            noise: the noise that `cell.noise` returned for this unroll.

        Returns:
            The outputs (batch, time, output) and the state after each row's last valid step.
        """
