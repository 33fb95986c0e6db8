"""Hard attention: the context is the value of one source position, which is sampled and trained with REINFORCE.

    s_t ~ Multinoulli(a_t),  context_t = value_{s_t}

Xu et al. 2015, "Show, Attend and Tell", section 4.1. A sample has no gradient: `hard_attention_loss`
raises the probability of positions that led to a higher reward (Williams 1992).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.layers.attention import AdditiveAttention, Attended, Memory
from unrolled.losses import Loss
from unrolled.sequences import at_steps
from unrolled.shapes import expect


class HardAttentionSample(NamedTuple):
    """The samples of each sequence so far. It is the `DecoderState.attention` of a decoder with hard attention."""

    log_probability: Tensor  # (batch,) of all samples together, in nats
    entropy: Tensor  # (batch,) of the distributions, summed over the steps


class HardAttention(AdditiveAttention):
    """Samples a position with the weights of additive attention; in evaluation mode it takes the argmax.

    The returned weights are those of the distribution. In training mode a step of a row is soft with probability
    `soft`: it uses the weighted mean of all positions, which speeds up learning and reduces the variance of the
    gradient (section 4.1, "with probability 0.5").

    Args:
        source_size: number of features of the source.
        query_size: number of features of a query.
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
        """Return the state before the first sample: zeros."""
        nothing = memory.values.new_zeros(memory.values.shape[0], dtype=torch.float32)
        return HardAttentionSample(nothing, nothing)

    def forward(self, query: Tensor, memory: Memory, state: Any) -> Attended:
        """Compute context (batch, value), weights (batch, source) and samples so far for a query (batch, query)."""
        mean, weights, _ = super().forward(query, memory, None)
        if weights is None or weights.shape[1] == 0:
            return Attended(mean, weights, state)
        for name, leaf in zip(HardAttentionSample._fields, state, strict=True):
            expect(leaf, "batch", batch=mean.shape[0], name=f"state.{name}")
        there = memory.mask.any(1)
        chances = weights.where(there.unsqueeze(1), torch.ones_like(weights))  # a row without a source is sampled, too
        if self.training:
            chosen = chances.detach().multinomial(1)
            hard = there & (torch.rand_like(mean[:, 0], dtype=torch.float32) >= self.soft)
        else:
            chosen, hard = chances.argmax(1, keepdim=True), there
        value = at_steps(memory.values, chosen).squeeze(1)
        logs = chances.clamp(min=torch.finfo(chances.dtype).tiny).log()
        choices = HardAttentionSample(
            state.log_probability + at_steps(logs, chosen).squeeze(1) * hard,
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
    """Compute −Σ (λ_r (r − b) log p(s) + λ_e H) over sequences, the sampling terms of Xu et al. 2015, eq. 12.

    Args:
        rewards: (batch,) the reward of each sequence, such as its log probability; no gradient flows through them.
        baseline: the average reward.
        choices: the samples of each sequence.
        weight: λ_r.
        entropy: λ_e, the weight of the entropy, which keeps the distributions from collapsing too early.

    Raises:
        ShapeError: rewards whose batch differs from that of the samples.
    """
    log_probability, entropies = choices
    expect(rewards, "batch", batch=len(log_probability), name="rewards")
    advantage = (rewards - baseline).detach()
    total = -weight * (advantage * log_probability).sum() - entropy * entropies.sum()
    return Loss(total, torch.tensor(len(rewards), device=rewards.device))
