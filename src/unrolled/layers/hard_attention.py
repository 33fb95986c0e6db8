"""Hard attention: one place of the source instead of a mean of all, chosen at random and trained by what came of it.

    s_t ~ Multinoulli(a_t),  context_t = value_{s_t}

Xu et al. 2015, "Show, Attend and Tell", section 4.1. A sample has no gradient: `hard_attention_loss`
makes those places more likely that led to a better text (REINFORCE, Williams 1992).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.layers.attention import AdditiveAttention, Attended, Memory
from unrolled.losses import Loss
from unrolled.shapes import expect


class HardAttentionSample(NamedTuple):
    """What was chosen for each text so far, as `DecoderState.attention` of a decoder with hard attention."""

    log_probability: Tensor  # (batch,) of all choices together, in nats
    entropy: Tensor  # (batch,) of what was chosen from, summed over the steps


class HardAttention(AdditiveAttention):
    """The value of one place, drawn with the weights of additive attention; in evaluation the likeliest.

    The weights that it gives back are those that it drew with. In training a step of a row is soft with probability
    `soft`: it takes the mean of all places, which learns faster and makes the choices' gradient less noisy (section
    4.1, "with probability 0.5").

    Args:
        source_size: features of the source.
        query_size: features of a query.
        attention_size: units of the tanh layer; query_size by default.
        soft: probability of a soft step.

    Raises:
        ValueError: a size below one, a probability outside [0, 1].
    """

    def __init__(
        self, source_size: int, query_size: int, *, attention_size: int | None = None, soft: float = 0.5
    ) -> None:
        super().__init__(source_size, query_size, attention_size=attention_size)
        if not 0.0 <= soft <= 1.0:
            raise ValueError(f"soft is {soft}, expected a probability in [0, 1]")
        self.soft = soft

    def start(self, memory: Memory) -> Any:
        """Nothing has been chosen."""
        nothing = memory.values.new_zeros(len(memory.values), dtype=torch.float32)
        return HardAttentionSample(nothing, nothing)

    def forward(self, query: Tensor, memory: Memory, state: Any) -> Attended:
        """One step: query (batch, query) -> context (batch, value), weights (batch, source), the choices so far."""
        mean, weights, _ = super().forward(query, memory, None)
        if weights is None or weights.shape[1] == 0:
            return Attended(mean, weights, state)
        for name, leaf in zip(HardAttentionSample._fields, state, strict=True):
            expect(leaf, "batch", batch=len(mean), name=f"state.{name}")
        there = memory.mask.any(1)
        chances = weights.where(there.unsqueeze(1), torch.ones_like(weights))  # a row without a source draws, too
        if self.training:
            chosen = chances.detach().multinomial(1)
            hard = there & (torch.rand_like(mean[:, 0], dtype=torch.float32) >= self.soft)
        else:
            chosen, hard = chances.argmax(1, keepdim=True), there
        value = memory.values.take_along_dim(chosen.unsqueeze(-1), dim=1).squeeze(1)
        logs = chances.clamp(min=torch.finfo(chances.dtype).tiny).log()
        choices = HardAttentionSample(
            state.log_probability + logs.take_along_dim(chosen, dim=1).squeeze(1) * hard,
            state.entropy - (weights * logs).sum(1),
        )
        return Attended(value.where(hard.unsqueeze(1), mean), weights, choices)


def hard_attention_loss(
    rewards: Tensor,
    baseline: float | Tensor,
    choices: HardAttentionSample,
    *,
    weight: float = 1.0,
    entropy: float = 0.0,
) -> Loss:
    """−Σ (λ_r (r − b) log p(s) + λ_e H) over texts, whose gradient is Xu et al.'s eq. 12 without that of the words.

    Args:
        rewards: (batch,) what each text was worth, its log probability; no gradient passes through them.
        baseline: what a text is worth on average.
        choices: of each text.
        weight: λ_r.
        entropy: λ_e, which keeps the choices from settling too soon.

    Raises:
        ShapeError: rewards that don't belong to the choices.
    """
    log_probability, entropies = choices
    expect(rewards, "batch", batch=len(log_probability), name="rewards")
    advantage = (rewards - baseline).detach()
    total = -weight * (advantage * log_probability).sum() - entropy * entropies.sum()
    return Loss(total, torch.tensor(len(rewards), device=rewards.device))
