r"""Mogrifier LSTM: the input and the state gate each other for some rounds before the LSTM's step.

    x ← 2σ(Q_k h) ⊙ x    in round k = 1, 3, 5, …
    h ← 2σ(R_k x) ⊙ h    in round k = 2, 4, 6, …

followed by the LSTM's step on x, h and c_{t-1}. Melis, Kočiský & Blunsom 2020, "Mogrifier LSTM", eq. 1-2, section 2.2.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from unrolled.cells.base import AffineCell, RecurrentNoise
from unrolled.cells.gates import init_forget_bias, update_cell
from unrolled.shapes import expect
from unrolled.state import LSTMState


class MogrifierLSTMCell(AffineCell[LSTMState]):
    """One step of a mogrifier LSTM.

    Parameters have the names, order (i, f, g, o) and shapes of torch.nn.LSTMCell's. In addition, each round k has
    weight_round_k, (input, hidden) in odd rounds and (hidden, input) in even ones, or, with a rank, its two factors
    weight_left_k (·, rank) and weight_right_k (rank, ·). All are drawn from U(−1/√hidden, 1/√hidden), except the forget
    gate's bias. The input can't be projected for all steps at once, since the state changes it.

    Args:
        input_size: number of input features.
        hidden_size: number of features of the state and of the output.
        rounds: number of rounds; with 0 the cell is an LSTM. The paper uses 5.
        rank: rank of the matrices of the rounds; None for full rank.
        forget_bias: initial bias of the forget gate.
        recurrent_dropout: probability that a unit of h is dropped, after the rounds, for a whole unroll.
        weight_drop: probability that an element of weight_hh is dropped for a whole unroll.

    Raises:
        ValueError: a size or rank below one, a negative number of rounds, a probability outside [0, 1).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        rounds: int = 5,
        rank: int | None = None,
        forget_bias: float = 1.0,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size, gates=4, recurrent_dropout=recurrent_dropout, weight_drop=weight_drop)
        if rounds < 0:
            raise ValueError(f"rounds is {rounds}, expected 0 or more")
        if rank is not None and rank < 1:
            raise ValueError(f"rank is {rank}, expected 1 or more, or None for full rank")
        self.rounds = rounds
        self.rank = rank
        self.forget_bias = forget_bias
        for number in range(1, rounds + 1):
            to, of = (input_size, hidden_size) if number % 2 else (hidden_size, input_size)
            if rank is None:
                self.register_parameter(f"weight_round_{number}", nn.Parameter(torch.empty(to, of)))
            else:
                self.register_parameter(f"weight_left_{number}", nn.Parameter(torch.empty(to, rank)))
                self.register_parameter(f"weight_right_{number}", nn.Parameter(torch.empty(rank, of)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters from U(−1/√hidden, 1/√hidden); set the forget gate's bias."""
        super().reset_parameters()
        init_forget_bias(self, self.forget_bias)

    def initial_state(self, batch: int, *, like: Tensor) -> LSTMState:
        """Return zeros (batch, hidden) with the device and the dtype of `like`."""
        return LSTMState(*(like.new_zeros(batch, self.hidden_size) for _ in range(2)))

    def project(self, inputs: Tensor) -> Tensor:
        """Return the inputs (..., input) unchanged: each step needs the input itself."""
        expect(inputs, "... input", input=self.input_size, name="inputs")
        return inputs

    def step(
        self, projected: Tensor, state: LSTMState, noise: RecurrentNoise | None = None
    ) -> tuple[Tensor, LSTMState]:
        """Compute h_t (batch, hidden), which is the output, and the next state from an input (batch, input)."""
        x, h = projected, state.h
        for number in range(1, self.rounds + 1):
            if number % 2:
                x = self.tap(f"round_{number}", 2.0 * torch.sigmoid(self._round(number, h))) * x
            else:
                h = self.tap(f"round_{number}", 2.0 * torch.sigmoid(self._round(number, x))) * h
        gates = linear(x, self.weight_ih, self.bias_ih) + self.recur(h, noise)
        new = update_cell(self, gates.chunk(4, dim=-1), state.c)
        return new.h, new

    def _round(self, number: int, values: Tensor) -> Tensor:
        """Compute Q_k h or R_k x."""
        if self.rank is None:
            return linear(values, getattr(self, f"weight_round_{number}"))
        return linear(linear(values, getattr(self, f"weight_right_{number}")), getattr(self, f"weight_left_{number}"))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rounds={self.rounds}, rank={self.rank}"
