r"""Independently recurrent network: each unit is connected only to itself at the previous step.

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

    There is no recurrent product, so the units of a layer interact only in the next layer; use two layers or more.
    weight_ih and bias_ih are drawn from U(−1/√hidden, 1/√hidden), weight_u from U(0, 1).

    Args:
        input_size: number of input features.
        hidden_size: number of features of the state and of the output.
        activation: f, by name; the paper uses "relu".
        candidate_dropout: probability that an element of f's value is dropped at a step.
        zoneout: probability that an element of h keeps its value at a step.

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
        """Draw weight_ih and bias_ih from U(−1/√hidden, 1/√hidden), weight_u from U(0, 1)."""
        super().reset_parameters()
        nn.init.uniform_(self.weight_u, 0.0, 1.0)

    def recurrent_inputs(self, state: HiddenState) -> tuple[Tensor, ...]:
        """Return an empty tuple: there is no recurrent product."""
        return ()

    def pointwise(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: HiddenState
    ) -> tuple[Tensor, HiddenState]:
        """Compute h_t, which is the output and the next state."""
        h = self.apply_candidate_dropout(self._activate(projected[0] + self.weight_u * state.h), projected)
        new = self.apply_zoneout(HiddenState(h), state, projected)
        return new.h, new

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation}"
