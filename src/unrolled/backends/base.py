"""What a backend is: a way to run a cell through time."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from unrolled.cells.base import Cell


class Backend(ABC):
    """A way to run a cell through time. It is not mathematics: same parameters, same results as `LoopBackend`.

    It sees one direction only, and inputs whose padding is already zero; what it leaves in the padding of the outputs
    never matters, since `unroll` clears it.
    """

    name: str

    @abstractmethod
    def refuses(self, cell: Cell[Any], inputs: Tensor) -> str | None:
        """Why it cannot run this cell, with its options and in its mode, on these inputs; None where it can."""

    @abstractmethod
    def run(self, cell: Cell[Any], inputs: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
        """Run a cell over at least one step.

        Args:
            cell: a cell that `refuses` found nothing against.
            inputs: (batch, time, input), zero in the padding.
            state: before the first step.
            lengths: (batch,) int64 on the device of the inputs, 0 to time; None where nothing is padded.

        Returns:
            The outputs (batch, time, output) and the state behind each row's last valid step.
        """
