r"""Elementwise noise in a cell's step: dropout on the candidate, and zoneout.

    g_t ← m_t ⊙ g_t                          candidate dropout: m_t new at each step, 0 or 1 / (1 − p)
    s_t ← k_t ⊙ s_{t-1} + (1 − k_t) ⊙ s_t    zoneout: k_t new at each step, 1 with the probability p

Semeniuta, Severyn & Barth 2016, "Recurrent Dropout without Memory Loss", masks sampled per step; Krueger
et al. 2017, "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", eq. 4-5. In evaluation mode
k_t is its expectation, p.
"""

import torch
from torch import Tensor

from unrolled.cells.base import S
from unrolled.cells.pointwise import PointwiseCell
from unrolled.state import map_state


class NoisyCell(PointwiseCell[S]):
    """A pointwise cell with dropout on the candidate, and zoneout.

    In `pointwise`, a subclass passes its candidate through `apply_candidate_dropout`, and its next state through
    `apply_zoneout`.

    Args:
        input_size: number of input features.
        hidden_size: number of features of each tensor of the state and of the output.
        candidate_dropout: probability that an element of the candidate is dropped at a step.
        zoneout: for each tensor of the state, the probability that an element keeps its value at a step.
        recurrent_dropout: probability that a unit is dropped in the recurrent product for a whole unroll.
        weight_drop: probability that an element of weight_hh is dropped for a whole unroll.

    Raises:
        ValueError: a size below one, a probability outside [0, 1), recurrent noise without a recurrent product.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        candidate_dropout: float = 0.0,
        zoneout: tuple[float, ...] = (),
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size, recurrent_dropout=recurrent_dropout, weight_drop=weight_drop)
        for name, probability in (("candidate_dropout", candidate_dropout), *(("zoneout", p) for p in zoneout)):
            if not 0.0 <= probability < 1.0:
                raise ValueError(f"{name} is {probability}, expected a probability in [0, 1)")
        self.candidate_dropout = candidate_dropout
        self.zoneout = zoneout

    @property
    def has_zoneout(self) -> bool:
        """Whether zoneout is active for any tensor of the state."""
        return any(probability > 0.0 for probability in self.zoneout)

    def step_masks(self, shape: tuple[int, ...], *, like: Tensor) -> tuple[Tensor, ...]:
        """Draw the candidate's mask, then those of zoneout, (*shape, hidden) each; none in evaluation mode."""
        if not self.training:
            return ()
        like = like.new_empty(1).expand(*shape, self.hidden_size)
        masks: list[Tensor] = []
        if self.candidate_dropout > 0.0:
            masks.append(torch.nn.functional.dropout(torch.ones_like(like), self.candidate_dropout))
        masks.extend(torch.full_like(like, p).bernoulli() for p in self.zoneout if p > 0.0)
        return tuple(masks)

    def apply_candidate_dropout(self, candidate: Tensor, projected: tuple[Tensor, ...]) -> Tensor:
        """Apply dropout to the candidate in training mode."""
        return candidate * projected[self.gates] if self.training and self.candidate_dropout > 0.0 else candidate

    def apply_zoneout(self, new: S, old: S, projected: tuple[Tensor, ...]) -> S:
        """Apply zoneout to the next state: zoned out units keep their value; in evaluation mode it is averaged."""
        if not self.has_zoneout:
            return new
        masks = iter(projected[self.gates + (self.candidate_dropout > 0.0) :])
        probabilities = iter(self.zoneout)

        def keep(after: Tensor, before: Tensor) -> Tensor:
            probability = next(probabilities, 0.0)
            if probability == 0.0:
                return after
            if self.training:
                return torch.where(next(masks) > 0.0, before, after)
            return after + probability * (before - after)

        return map_state(keep, new, old)

    def extra_repr(self) -> str:
        options = {"candidate_dropout": self.candidate_dropout, "zoneout": self.zoneout if self.has_zoneout else None}
        return ", ".join([super().extra_repr(), *(f"{name}={value}" for name, value in options.items() if value)])
