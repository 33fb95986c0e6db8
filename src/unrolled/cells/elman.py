r"""Elman's recurrent network.

    h_t = f(W x_t + b + U h_{t-1} + c)

Elman 1990, "Finding Structure in Time", Cognitive Science 14; there with the logistic function as f.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unrolled.cells.pointwise import PointwiseCell
from unrolled.state import HiddenState

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "logistic": torch.sigmoid,
    "relu": torch.relu,
    "softsign": nn.functional.softsign,
}


class ElmanCell(PointwiseCell[HiddenState]):
    """One step of Elman's network.

    Parameters are named and shaped as torch.nn.RNNCell's, so weights move both ways, and are drawn as there, from
    U(−1/√hidden, 1/√hidden).

    Args:
        input_size: features of an input.
        hidden_size: features of the state, and of the output.
        activation: "tanh", "logistic", "relu" or "softsign".
        recurrent_dropout: probability of a unit of h_{t-1} to be dropped for a whole unroll.
        weight_drop: probability of an element of weight_hh to be dropped for a whole unroll.

    Raises:
        ValueError: a size below one, a probability outside [0, 1), an unknown activation.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        activation: str = "tanh",
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size, recurrent_dropout=recurrent_dropout, weight_drop=weight_drop)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
        self.activation = activation

    def pointwise(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: HiddenState
    ) -> tuple[Tensor, HiddenState]:
        """What the units take from the input and from h_{t-1} -> h_t as output and as state."""
        h = ACTIVATIONS[self.activation](projected[0] + recurrent[0])
        return h, HiddenState(h)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation}"
