r"""Clockwork RNN: units in modules, each of which is updated with its own period T.

    h_t = tanh(W x_t + b + U h_{t-1} + d)    in modules with t mod T = 0
    h_t = h_{t-1}                            in the others

where U connects a module only to modules with the same or a shorter period. Koutník, Greff, Gomez & Schmidhuber 2014,
"A Clockwork RNN", eq. 1-2 and section 3.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.cells.pointwise import PointwiseCell
from unrolled.wording import counted


class ClockworkState(NamedTuple):
    """h, and for each unit the number of steps until its next update, (batch, hidden) each."""

    h: Tensor
    countdown: Tensor


class ClockworkCell(PointwiseCell[ClockworkState]):
    """One step of a clockwork RNN. All modules are updated at the first step of a sequence.

    Parameters have the names, shapes and initialization of torch.nn.RNNCell's. The blocks of weight_hh from shorter to
    longer periods are not used. All modules are computed at every step, so longer periods don't reduce the cost.

    Args:
        input_size: number of input features.
        hidden_size: number of features of the state and of the output, divided evenly among the modules.
        periods: T of each module, in ascending order.
        recurrent_dropout: probability that a unit of h_{t-1} is dropped for a whole unroll.
        weight_drop: probability that an element of weight_hh is dropped for a whole unroll.

    Raises:
        ValueError: a size below one, periods that don't ascend from 1 or more, more periods than units, a probability
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
            raise ValueError(f"periods are {list(periods)}, expected integers that ascend from 1 or more")
        if len(periods) > hidden_size:
            raise ValueError(
                f"periods={list(periods)} has {counted(len(periods), 'period')} for "
                f"{counted(hidden_size, 'unit')}; each module needs one or more"
            )
        self.periods = tuple(int(period) for period in periods)
        modules = torch.arange(hidden_size) * len(periods) // hidden_size
        period = torch.tensor(self.periods, dtype=self.weight_hh.dtype)[modules]
        self.register_buffer("period", period, persistent=False)

    def recurrent_weight(self) -> Tensor:
        """Return weight_hh (hidden, hidden) with zeros from shorter to longer periods."""
        return torch.where(self.period >= self.period.unsqueeze(1), self.weight_hh, 0.0)

    def pointwise(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: ClockworkState
    ) -> tuple[Tensor, ClockworkState]:
        """Compute h_t, which is also the output, and the next countdown."""
        updated = state.countdown < 0.5
        h = torch.where(updated, torch.tanh(projected[0] + recurrent[0]), state.h)
        countdown = torch.where(updated, self.period, state.countdown) - 1.0
        return h, ClockworkState(h, countdown)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, periods={self.periods}"
