r"""Independently recurrent network: a unit sees of the last step itself alone.

    h_t = f(W x_t + b + u ⊙ h_{t-1})

Li et al. 2018, "Independently Recurrent Neural Network (IndRNN): Building A Longer and Deeper RNN", eq. 2.
"""

import torch
from torch import Tensor, nn

from unrolled.cells.activations import activation as named
from unrolled.cells.noisy import NoisyCell
from unrolled.state import HiddenState


class IndRNNCell(NoisyCell[HiddenState]):
    """One step of an independently recurrent network.

    There is no recurrent product, so units of one layer meet in the next; stack two or more. weight_ih and bias_ih are
    drawn from U(−1/√hidden, 1/√hidden), weight_u from U(0, 1).

    Args:
        input_size: features of an input.
        hidden_size: features of the state, and of the output.
        activation: f, by name; the paper takes "relu".
        candidate_dropout: probability of an element of f's value to be dropped at a step.
        zoneout: probability of an element of h to keep its value at a step.

    Raises:
        ValueError: a size below one, a probability outside [0, 1), an unknown activation.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        activation: str = "relu",
        candidate_dropout: float = 0.0,
        zoneout: float = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size, candidate_dropout=candidate_dropout, zoneout=(zoneout,))
        self.activation = activation
        self._activate = named(activation)
        self.weight_u = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the input's share from U(−1/√hidden, 1/√hidden), u from U(0, 1)."""
        super().reset_parameters()
        nn.init.uniform_(self.weight_u, 0.0, 1.0)

    def recurrent_inputs(self, state: HiddenState) -> tuple[Tensor, ...]:
        """Nothing: there is no recurrent product."""
        return ()

    def pointwise(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: HiddenState
    ) -> tuple[Tensor, HiddenState]:
        """What the units take from the input -> h_t as output and as state."""
        h = self.dropped(self._activate(projected[0] + self.weight_u * state.h), projected)
        new = self.apply_zoneout(HiddenState(h), state, projected)
        return new.h, new

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation}"
