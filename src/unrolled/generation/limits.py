"""What a search may write: how long, and what not again."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unrolled.shapes import expect


def per_row(value: int | Tensor, like: Tensor, name: str) -> Tensor:
    """A bound for each row, (batch,) int64.

    Args:
        value: one for all, or (batch,).
        like: (batch,), for number and device.
        name: in the error.

    Raises:
        ValueError: a bound below 0.
        ShapeError: bounds of another batch.
    """
    bounds = torch.as_tensor(value, device=like.device)
    if bounds.dim() == 0:
        bounds = bounds.expand(len(like))
    expect(bounds, "batch", batch=len(like), name=name)
    if len(bounds) and int(bounds.min()) < 0:
        raise ValueError(f"{name}={int(bounds.min())}: a number of tokens, 0 or more")
    return bounds.long()


def forbid(scores: Tensor, tokens: Sequence[int]) -> Tensor:
    """Scores (rows, vocabulary) with these tokens ruled out."""
    if not tokens:
        return scores
    return scores.index_fill(1, torch.tensor(list(tokens), device=scores.device), -torch.inf)


def forbid_repeats(scores: Tensor, written: Tensor, size: int) -> Tensor:
    """Scores (rows, vocabulary) without tokens that would complete an n-gram that is already written.

    Args:
        scores: of the next token.
        written: (rows, length) tokens so far.
        size: n; 0 allows all.
    """
    length = written.shape[1]
    if size == 0 or length < size:
        return scores
    following = written[:, size - 1 :]  # the last token of each n-gram so far
    if size == 1:
        return scores.scatter(1, following, -torch.inf)
    begun = written[:, length - size + 1 :]
    same = (written.unfold(1, size - 1, 1)[:, :-1] == begun.unsqueeze(1)).all(-1)
    found = torch.zeros_like(scores, dtype=torch.int8)
    found.scatter_add_(1, following, same.to(torch.int8))
    return scores.masked_fill(found != 0, -torch.inf)
