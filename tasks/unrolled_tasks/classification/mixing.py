"""Sequences of frames laid over one another in training."""

import torch
from torch import Tensor


def mixed(source: Tensor, lengths: Tensor, concentration: float) -> tuple[Tensor, Tensor, float, Tensor]:
    """Mixup (Zhang et al. 2018): each sequence with another of its batch, which may be itself.

    Args:
        source: (batch, time, features), zero behind the lengths.
        lengths: (batch,)
        concentration: of the Beta distribution from which one share is drawn for the batch; above 0.

    Returns:
        The mixed sequences, each as long as the longer of its two; the lengths; the share of a sequence's own, which is
        a half or more, so that own and other are not confused; and which the others were (batch,).
    """
    drawn = float(torch.distributions.Beta(concentration, concentration).sample())
    share = max(drawn, 1 - drawn)
    others = torch.randperm(len(source)).to(source.device)
    return torch.lerp(source[others], source, share), torch.maximum(lengths, lengths[others]), share, others
