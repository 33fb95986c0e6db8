"""Dropout on sequences, kept outside every kernel, so that a seed means the same on each device."""

import torch
from torch import Tensor, nn

from unrolled.shapes import expect


class _Dropout(nn.Module):
    """What both have: a probability, and a mode in which nothing is dropped."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise ValueError(f"dropout is {probability}, expected a probability in [0, 1)")
        self.probability = probability

    @property
    def active(self) -> bool:
        """Whether anything is dropped in the present mode."""
        return self.training and self.probability > 0.0


class SequenceDropout(_Dropout):
    """Dropout on (batch, time, features).

    Args:
        probability: share of the values that is set to zero while training; the rest grows by 1 / (1 − probability).
        variational: one mask for all time steps of a sequence (Gal & Ghahramani 2016) instead of a new one at each.

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def __init__(self, probability: float, *, variational: bool = False) -> None:
        super().__init__(probability)
        self.variational = variational

    def forward(self, values: Tensor) -> Tensor:
        """(batch, time, features) -> the same shape."""
        expect(values, "batch time features", name="values")
        if not self.active:
            return values
        if not self.variational:
            return nn.functional.dropout(values, self.probability)
        ones = values.new_ones(values.shape[0], 1, values.shape[2])
        return values * nn.functional.dropout(ones, self.probability)

    def extra_repr(self) -> str:
        return f"{self.probability}, variational={self.variational}"


class TokenDropout(_Dropout):
    """Zeroes whole tokens of (batch, time, features): word dropout (Bowman et al. 2016, section 3.1).

    The others keep their size: a recurrent net reads one token at a step, so there is no sum to make up for.

    Args:
        probability: share of the tokens that is set to zero while training.

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def forward(self, values: Tensor) -> Tensor:
        """(batch, time, features) -> the same shape."""
        expect(values, "batch time features", name="values")
        if not self.active:
            return values
        return values * (torch.rand_like(values[..., :1]) >= self.probability)

    def extra_repr(self) -> str:
        return f"{self.probability}"


class EmbeddingDropout(_Dropout):
    """Zeroes words of the vocabulary for a whole pass, wherever they stand (Gal & Ghahramani 2016, section 4.2).

    The others grow by 1 / (1 − probability), as Merity et al. 2018, section 4.3, have it.

    Args:
        probability: share of the vocabulary that is dropped while training.

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def forward(self, embedding: nn.Embedding, ids: Tensor) -> Tensor:
        """Ids (batch, time) -> (batch, time, features)."""
        embedded = embedding(ids)
        if not self.active:
            return embedded
        kept = nn.functional.dropout(embedded.new_ones(embedding.num_embeddings), self.probability)
        return embedded * kept[ids].unsqueeze(-1)

    def extra_repr(self) -> str:
        return f"{self.probability}"
