"""Functions that several LSTM cells share: the forget gate's bias and the update of h and c."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.cells.base import AffineCell, Cell
from unrolled.state import LSTMState


def init_forget_bias(cell: AffineCell[Any], bias: float) -> None:
    """Set the bias of the forget gate, the second of (i, f, g, o), in bias_ih, and set it to zero in bias_hh."""
    forget = slice(cell.hidden_size, 2 * cell.hidden_size)
    with torch.no_grad():
        cell.bias_ih[forget] = bias
        cell.bias_hh[forget] = 0.0


def update_cell(cell: Cell[Any], gates: Sequence[Tensor], c: Tensor) -> LSTMState:
    """Compute the next state of an LSTM from i, f, g, o before their activations, and c_{t-1}."""
    i, f, g, o = gates
    kept = cell.tap("f", torch.sigmoid(f)) * c
    c = kept + cell.tap("i", torch.sigmoid(i)) * cell.tap("g", torch.tanh(g))
    return LSTMState(cell.tap("o", torch.sigmoid(o)) * torch.tanh(c), c)
