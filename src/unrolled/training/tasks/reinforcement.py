"""REINFORCE for hard attention: tokens are trained on the references, attended positions by their reward."""

import torch
from torch import Tensor, nn

from unrolled.layers.hard_attention import hard_attention_loss
from unrolled.models.decoders.base import Decoded


class Reinforcement(nn.Module):
    """REINFORCE loss with a moving average of the reward as baseline; the reward is the log probability of a text.

    Xu et al. 2015, "Show, Attend and Tell", section 4.1. The average is part of a checkpoint and equal on all
    processes.

    Args:
        weight: weight of this loss relative to the cross-entropy, λ_r.
        entropy: weight of the entropy of the attention weights, λ_e.
        decay: decay of the moving average.

    Raises:
        ValueError: a negative weight, or a decay outside [0, 1).
    """

    baseline: Tensor
    initialized: Tensor

    def __init__(self, weight: float = 1.0, entropy: float = 0.002, decay: float = 0.9) -> None:
        super().__init__()
        if not (0 <= weight < float("inf") and 0 <= entropy < float("inf")) or not 0.0 <= decay < 1.0:
            raise ValueError(f"weight={weight} and entropy={entropy} are 0 or more, decay={decay} is in [0, 1)")
        self.weight, self.entropy, self.decay = weight, entropy, decay
        self.register_buffer("baseline", torch.zeros(()))
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))

    def forward(self, decoded: Decoded, targets: Tensor, mask: Tensor) -> Tensor:
        """Returns the term added to the summed loss of a batch, and updates the average.

        Args:
            decoded: output of the decoder.
            targets: (batch, time) int64.
            mask: (batch, time) bool, True for valid steps.
        """
        log_probabilities = decoded.parameters.detach().float().log_softmax(-1)
        rewards = log_probabilities.take_along_dim(targets.unsqueeze(-1), -1).squeeze(-1).masked_fill(~mask, 0.0).sum(1)
        mean = _mean_over_ranks(rewards)
        baseline = torch.where(self.initialized, self.baseline, mean)
        choices = decoded.state.attention
        loss = hard_attention_loss(rewards, baseline, choices, weight=self.weight, entropy=self.entropy)
        self.baseline.copy_(self.decay * baseline + (1.0 - self.decay) * mean)
        self.initialized.fill_(True)
        return loss.total


def _mean_over_ranks(rewards: Tensor) -> Tensor:
    """Returns the mean over the texts of all processes."""
    distributed = torch.distributed
    both = torch.stack([rewards.sum(), rewards.new_tensor(float(len(rewards)))])
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(both)
    return both[0] / both[1].clamp(min=1.0)
