r"""Clockwork RNN: units in modules, each of which moves at the beat of its own clock.

    h_t = tanh(W x_t + b + U h_{t-1} + d)    in modules with t mod T = 0
    h_t = h_{t-1}                            in the others

where U leads from a module to those that are as fast or faster only. Koutník, Greff, Gomez & Schmidhuber 2014, "A
Clockwork RNN", eq. 1-2 and section 3.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.cells.pointwise import PointwiseCell
from unrolled.wording import counted


class ClockworkState(NamedTuple):
    """h, and for each unit how many steps it still waits, (batch, hidden) each."""

    h: Tensor
    waits: Tensor


class ClockworkCell(PointwiseCell[ClockworkState]):
    """One step of a clockwork RNN. All modules move at the first step of a sequence.

    Parameters are named and shaped as torch.nn.RNNCell's, and are drawn as there; what weight_hh holds from faster to
    slower modules never counts. It saves no work here: what a sleeping module would do is computed and not taken.

    Args:
        input_size: features of an input.
        hidden_size: features of the state, and of the output; shared out evenly among the modules.
        periods: T of each module, rising.
        recurrent_dropout: probability of a unit of h_{t-1} to be dropped for a whole unroll.
        weight_drop: probability of an element of weight_hh to be dropped for a whole unroll.

    Raises:
        ValueError: a size below one, periods that don't rise from 1 or more, more of them than units, a probability
            outside [0, 1).
    """

    gates = 1
    state_type = ClockworkState
    counters = (1,)
    period: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        periods: Sequence[int] = (1, 2, 4, 8),
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size, recurrent_dropout=recurrent_dropout, weight_drop=weight_drop)
        rising = all(one < other for one, other in pairwise(periods))
        if len(periods) == 0 or periods[0] < 1 or not rising:
            raise ValueError(f"periods are {list(periods)}, expected whole numbers that rise from 1 or more")
        if len(periods) > hidden_size:
            raise ValueError(
                f"periods={list(periods)} has {counted(len(periods), 'period')} for "
                f"{counted(hidden_size, 'unit')}; give each module one or more"
            )
        self.periods = tuple(int(period) for period in periods)
        modules = torch.arange(hidden_size) * len(periods) // hidden_size
        period = torch.tensor(self.periods, dtype=self.weight_hh.dtype)[modules]
        self.register_buffer("period", period, persistent=False)

    def recurrent_weight(self) -> Tensor:
        """(hidden, hidden): weight_hh, zero from faster to slower modules."""
        return torch.where(self.period >= self.period.unsqueeze(1), self.weight_hh, 0.0)

    def pointwise(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: ClockworkState
    ) -> tuple[Tensor, ClockworkState]:
        """What the units take from the input and from h_{t-1} -> h_t as output, h_t and the counters as state."""
        moves = state.waits < 0.5
        h = torch.where(moves, torch.tanh(projected[0] + recurrent[0]), state.h)
        waits = torch.where(moves, self.period, state.waits) - 1.0
        return h, ClockworkState(h, waits)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, periods={self.periods}"
