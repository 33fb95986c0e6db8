"""The reference backend: a loop over the steps in Python, which supports every cell."""

from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from unrolled.backends.base import Backend
from unrolled.cells.base import Cell
from unrolled.sequences import mask_from_lengths
from unrolled.state import where


class LoopBackend(Backend):
    """One call of `cell.step` per step, after one projection of the inputs of all steps."""

    name = "loop"

    def refuses(self, cell: Cell[Any], inputs: Tensor) -> None:
        return None

    def run(
        self, cell: Cell[Any], inputs: Tensor, state: Any, lengths: Tensor | None, reverse: bool, noise: Any
    ) -> tuple[Tensor, Any]:
        time = inputs.shape[1]
        projected = cell.project(inputs).unbind(1)
        valid = repeat(None) if lengths is None else mask_from_lengths(lengths, time).unbind(1)
        outputs: list[Tensor] = []
        for now, mask in zip(projected, valid, strict=False):
            output, following = cell.observed_step(now, state, noise)
            state = following if mask is None else where(mask, following, state)
            outputs.append(output)
        return torch.stack(outputs, dim=1), state
