"""What a backend is: a way to run a cell through time."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from unrolled.cells.base import Cell


class Backend(ABC):
    """A way to run a cell through time. It is not mathematics: same parameters, same results as `LoopBackend`.

    It sees inputs whose padding is already zero. Unless it says that it can, it reads only forwards, `unroll` turns its
    inputs and outputs round, and what it leaves in the padding of the outputs never matters, since `unroll` clears it.
    """

    name: str
    reverses: bool = False  # reads backwards by itself
    clears_padding: bool = False  # gives back zeros there

    @abstractmethod
    def refuses(self, cell: Cell[Any], inputs: Tensor) -> str | None:
        """Why it cannot run this cell, with its options and in its mode, on these inputs; None where it can."""

    @abstractmethod
    def run(
        self, cell: Cell[Any], inputs: Tensor, state: Any, lengths: Tensor | None, reverse: bool, noise: Any
    ) -> tuple[Tensor, Any]:
        """Run a cell over at least one step.

        Args:
            cell: a cell that `refuses` found nothing against.
            inputs: (batch, time, input), zero in the padding.
            state: before the first step.
            lengths: (batch,) int64 on the device of the inputs, 0 to time; None where nothing is padded.
            reverse: read from each row's last valid step to its first; never asked of a backend without `reverses`.
            noise: what `cell.noise` drew for these steps.

        Returns:
            The outputs (batch, time, output) and the state behind each row's last valid step.
        """
