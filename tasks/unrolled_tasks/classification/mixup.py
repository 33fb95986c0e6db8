"""Mixup of sequences of frames."""

import torch
from torch import Tensor


def mixup(source: Tensor, lengths: Tensor, concentration: float) -> tuple[Tensor, Tensor, float, Tensor]:
    """Applies mixup (Zhang et al. 2018): interpolates each sequence with a random one of its batch.

    Args:
        source: (batch, time, features), zero after the lengths.
        lengths: (batch,)
        concentration: concentration of the Beta distribution from which the batch's weight is drawn; above 0.

    Returns:
        The mixed sequences, each as long as the longer of the two; their lengths; the weight of each row's own
        sequence, at least a half; and (batch,) the indices of the other sequences.
    """
    drawn = float(torch.distributions.Beta(concentration, concentration).sample())
    share = max(drawn, 1 - drawn)
    others = torch.randperm(len(source)).to(source.device)
    return torch.lerp(source[others], source, share), torch.maximum(lengths, lengths[others]), share, others
