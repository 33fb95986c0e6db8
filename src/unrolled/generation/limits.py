"""What a search may be asked for, and what it may write: how long, and what not again."""

from collections.abc import Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor

from unrolled.models.decoders.base import Decoder
from unrolled.shapes import ShapeError, expect
from unrolled.state import leaves

_LARGEST = torch.finfo(torch.float32).max  # scores are in single precision


def whole(least: int, **options: Any) -> None:
    """Check options that count something.

    Raises:
        ValueError: no whole number, or one below `least`.
    """
    for name, value in options.items():
        try:
            fits = index(value) >= least
        except TypeError:
            fits = False
        if not fits:
            raise ValueError(f"{name}={value}: a whole number, {least} or more")


def finite(**options: float) -> None:
    """Check options that weigh something.

    Raises:
        ValueError: a number below 0, or one that isn't finite in single precision.
    """
    for name, value in options.items():
        if not 0.0 <= value <= _LARGEST:
            raise ValueError(f"{name}={value}: a finite number, 0 or more")


def check_temperature(temperature: float) -> None:
    """Check what divides logits.

    Raises:
        ValueError: a number below 0, or one that isn't finite.
    """
    if not 0.0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: 0 (greedy) or more; 1 is the model's own distribution")


def check_beginning(
    decoder: Decoder, state: Any, memory: Any, start: Tensor, stop: int | None, forbidden: Sequence[int]
) -> None:
    """Check what a search begins with.

    Raises:
        ShapeError: a state or a memory of another batch than the first tokens.
        ValueError: tokens that the decoder doesn't know.
    """
    expect(start, "batch", name="start")
    if start.is_floating_point() or start.is_complex() or start.dtype == torch.bool:
        raise ValueError(f"start is {start.dtype}, expected token ids, which are integers")
    for name, part in (("state", state), ("memory", memory)):
        for leaf in leaves(part):
            if leaf.dim() == 0 or len(leaf) != len(start):
                raise ShapeError(f"the {name} has a tensor of shape {tuple(leaf.shape)}, expected {len(start)} rows")
    size = getattr(decoder, "vocabulary_size", None)
    if size is None:
        return
    named = {"stop": [] if stop is None else [stop], "forbidden": list(forbidden)}
    named["start"] = [int(extreme) for extreme in start.long().aminmax()] if len(start) else []
    for name, tokens in named.items():
        wrong = [token for token in tokens if not 0 <= token < size]
        if wrong:
            raise ValueError(f"{name}: the decoder has the tokens 0 to {size - 1}, and not {wrong[0]}")


def undefined(scores: Tensor) -> Tensor:
    """(rows,): where log probabilities (rows, vocabulary) are none, since a logit was NaN or +∞, or all were −∞.

    A softmax spreads each of these over its row, so that one place tells.
    """
    return scores[:, 0].isnan()


class RowError(ValueError):
    """What one row of a batch makes impossible.

    Attributes:
        row: its place in the batch.
        said: what is wrong, without the place.
    """

    def __init__(self, row: int, said: str) -> None:
        super().__init__(f"row {row}: {said}")
        self.row, self.said = row, said


def undefined_row(row: int) -> RowError:
    """The error for a row about which the decoder says nothing that could be searched."""
    return RowError(row, "the decoder's logits are NaN or infinite; look at its weights, and at what it was given")


def blocked_row(row: int) -> RowError:
    """The error for a row in which the options leave nothing to write."""
    return RowError(row, "no token is allowed any more; lower min_length or no_repeat_ngram_size")


def per_row(value: int | Tensor, like: Tensor, name: str) -> Tensor:
    """A bound for each row, (batch,) int64.

    Args:
        value: one for all, or (batch,).
        like: (batch,), for number and device.
        name: in the error.

    Raises:
        ValueError: a bound below 0, or no whole number.
        ShapeError: bounds of another batch.
    """
    bounds = torch.as_tensor(value, device=like.device)
    if bounds.is_floating_point() or bounds.is_complex():
        raise ValueError(f"{name}={value}: a whole number of tokens, 0 or more")
    bounds = bounds.long()
    if bounds.dim() == 0:
        bounds = bounds.expand(len(like))
    expect(bounds, "batch", batch=len(like), name=name)
    if len(bounds) and int(bounds.min()) < 0:
        raise ValueError(f"{name}={int(bounds.min())}: a number of tokens, 0 or more")
    return bounds


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
