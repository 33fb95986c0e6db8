r"""Elman's recurrent network.

    h_t = f(W x_t + b + U h_{t-1} + c)

Elman 1990, "Finding Structure in Time", Cognitive Science 14, where f is the logistic function.
"""

from torch import Tensor

from unrolled.cells.activations import activation as named
from unrolled.cells.noisy import NoisyCell
from unrolled.state import HiddenState


class ElmanCell(NoisyCell[HiddenState]):
    """One step of Elman's network.

    Parameters have the names and shapes of torch.nn.RNNCell's, so weights can be copied both ways, and the same
    initialization, U(−1/√hidden, 1/√hidden).

    Args:
        input_size: number of input features.
        hidden_size: number of features of the state and of the output.
        activation: f, by name: "tanh", "sigmoid", "relu", "softsign", … (`unrolled.cells.activations`).
        candidate_dropout: probability that an element of f's value is dropped at a step.
        zoneout: probability that an element of h keeps its value at a step.
        recurrent_dropout: probability that a unit of h_{t-1} is dropped for a whole unroll.
        weight_drop: probability that an element of weight_hh is dropped for a whole unroll.

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
        candidate_dropout: float = 0.0,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            candidate_dropout=candidate_dropout,
            zoneout=(zoneout,),
            recurrent_dropout=recurrent_dropout,
            weight_drop=weight_drop,
        )
        self.activation = activation
        self._activate = named(activation)

    def pointwise(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: HiddenState
    ) -> tuple[Tensor, HiddenState]:
        """Compute h_t, which is the output and the next state."""
        h = self.apply_candidate_dropout(self._activate(projected[0] + recurrent[0]), projected)
        new = self.apply_zoneout(HiddenState(h), state, projected)
        return new.h, new

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation}"
