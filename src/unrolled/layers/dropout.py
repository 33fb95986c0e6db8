"""Dropout on sequences, computed outside of all kernels, so that a seed gives the same masks with every backend."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unrolled.resets import Stretches
from unrolled.shapes import expect


class _Dropout(nn.Module):
    """Base class: a dropout probability, which is inactive in evaluation mode."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise ValueError(f"dropout is {probability}, expected a probability in [0, 1)")
        self.probability = probability

    @property
    def active(self) -> bool:
        """Whether dropout is active in the present mode."""
        return self.training and self.probability > 0.0


class SequenceDropout(_Dropout):
    """Dropout on (batch, time, features).

    Args:
        probability: probability that a value is zeroed in training mode; others are scaled by 1 / (1 − probability).
        variational: whether all time steps of a sequence share one mask (Gal & Ghahramani 2016).

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def __init__(self, probability: float, *, variational: bool = False) -> None:
        super().__init__(probability)
        self.variational = variational

    def forward(self, values: Tensor, stretches: Stretches | None = None) -> Tensor:
        """Apply dropout to values (batch, time, features); a variational mask is drawn for each row or stretch."""
        expect(values, "batch time features", name="values")
        if not self.active:
            return values
        if not self.variational:  # numbers are drawn in the order of the memory, which differs between backends
            return nn.functional.dropout(values.contiguous(), self.probability)
        rows = len(values) if stretches is None else len(stretches.row)
        masks = nn.functional.dropout(values.new_ones(rows, 1, values.shape[2]), self.probability)
        return values * (masks if stretches is None else masks[:, 0][stretches.of_step])

    def mask(self, batch: int, size: int, *, like: Tensor) -> Tensor | None:
        """Draw a mask (batch, size) for one step, or for all steps if they share it; None while inactive."""
        return nn.functional.dropout(like.new_ones(batch, size), self.probability) if self.active else None

    def step_masks(self, mask: Tensor | None, time: int) -> Sequence[Tensor | None]:
        """Return the masks of each step: the given one if all steps share it, new ones of its shape if not."""
        if mask is None or self.variational:
            return [mask] * time
        return nn.functional.dropout(mask.new_ones(len(mask), time, mask.shape[1]), self.probability).unbind(1)

    def extra_repr(self) -> str:
        return f"{self.probability}, variational={self.variational}"


class TokenDropout(_Dropout):
    """Zeroes whole tokens of (batch, time, features): word dropout (Bowman et al. 2016, section 3.1).

    The others are not rescaled: a recurrent network reads one token per step, so no sum changes its expectation.

    Args:
        probability: probability that a token is zeroed in training mode.

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def forward(self, values: Tensor) -> Tensor:
        """Apply dropout to values (batch, time, features)."""
        expect(values, "batch time features", name="values")
        if not self.active:
            return values
        return values * (torch.rand(*values.shape[:2], 1, device=values.device) >= self.probability)

    def extra_repr(self) -> str:
        return f"{self.probability}"


class EmbeddingDropout(_Dropout):
    """Zeroes all occurrences of some words of the vocabulary (Gal & Ghahramani 2016, section 4.2).

    The others are scaled by 1 / (1 − probability), as in Merity et al. 2018, section 4.3.

    Args:
        probability: probability that a word of the vocabulary is dropped in training mode.

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def forward(self, embedding: nn.Embedding, ids: Tensor) -> Tensor:
        """Embed ids (batch, time) as (batch, time, features)."""
        embedded = embedding(ids)
        if not self.active:
            return embedded
        kept = nn.functional.dropout(embedded.new_ones(embedding.num_embeddings), self.probability)
        return embedded * kept[ids].unsqueeze(-1)

    def extra_repr(self) -> str:
        return f"{self.probability}"
