"""REINFORCE for hard attention: the words are trained on the references, the places by the reward that they bring."""

import torch
from torch import Tensor, nn

from unrolled.layers.hard_attention import hard_attention_loss
from unrolled.models.decoders.base import Decoded


class Reinforcement(nn.Module):
    """REINFORCE with a moving average of the reward, which is the log probability of a whole text.

    Xu et al. 2015, "Show, Attend and Tell", section 4.1. The average is split of a checkpoint, and the same on all
    processes.

    Args:
        weight: of this loss beside that of the words, λ_r.
        entropy: of what is chosen from, λ_e.
        decay: of the moving average.

    Raises:
        ValueError: a negative weight, a decay outside [0, 1).
    """

    baseline: Tensor
    seen: Tensor

    def __init__(self, weight: float = 1.0, entropy: float = 0.002, decay: float = 0.9) -> None:
        super().__init__()
        if not (0 <= weight < float("inf") and 0 <= entropy < float("inf")) or not 0.0 <= decay < 1.0:
            raise ValueError(f"weight={weight} and entropy={entropy} are 0 or more, decay={decay} is in [0, 1)")
        self.weight, self.entropy, self.decay = weight, entropy, decay
        self.register_buffer("baseline", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def forward(self, decoded: Decoded, targets: Tensor, mask: Tensor) -> Tensor:
        """Targets and mask (batch, time) -> what is added to the summed loss of these texts; moves the average."""
        said = decoded.logits.detach().float().log_softmax(-1).take_along_dim(targets.unsqueeze(-1), -1).squeeze(-1)
        rewards = said.masked_fill(~mask, 0.0).sum(1)
        mean = _mean_of_processes(rewards)
        baseline = torch.where(self.seen, self.baseline, mean)
        choices = decoded.state.attention
        loss = hard_attention_loss(rewards, baseline, choices, weight=self.weight, entropy=self.entropy)
        self.baseline.copy_(self.decay * baseline + (1.0 - self.decay) * mean)
        self.seen.fill_(True)
        return loss.total


def _mean_of_processes(rewards: Tensor) -> Tensor:
    """The mean over the texts of all processes."""
    distributed = torch.distributed
    both = torch.stack([rewards.sum(), rewards.new_tensor(float(len(rewards)))])
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(both)
    return both[0] / both[1].clamp(min=1.0)
