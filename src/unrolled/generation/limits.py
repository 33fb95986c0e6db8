"""Checks of generation options, and constraints on generated tokens."""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from operator import index
from typing import Any

import torch
from torch import Tensor

from unrolled.layers.observing import refuse_recording
from unrolled.models.decoders.base import Decoder
from unrolled.shapes import ShapeError, expect
from unrolled.state import leaves

_LARGEST = torch.finfo(torch.float32).max  # scores have single precision


_ends: ContextVar[float | None] = ContextVar("_ends", default=None)


class TimeLimitError(ValueError):
    """A search or sampling that took longer than its time limit."""


@contextmanager
def time_limit(seconds: float) -> Generator[None]:
    """Limit the time of all searches and sampling within the context, which check it at each step.

    The time begins with the context, and holds in this thread alone.

    Args:
        seconds: the limit.

    Raises:
        TimeLimitError: from a search or sampling that goes on after the limit.
    """
    before = _ends.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends.reset(before)


def check_time() -> None:
    """Check the time limit; call it at each step.

    Raises:
        TimeLimitError: the time is over.
    """
    ends = _ends.get()
    if ends is not None and time.monotonic() > ends:
        raise TimeLimitError("the time limit is over; generate less, search with fewer beams, or raise the limit")


def whole(least: int, **options: Any) -> None:
    """Check options that are integers.

    Raises:
        ValueError: not an integer, or below `least`.
    """
    for name, value in options.items():
        try:
            fits = index(value) >= least
        except TypeError:
            fits = False
        if not fits:
            raise ValueError(f"{name}={value}: expected an integer of {least} or more")


def finite(**options: float) -> None:
    """Check options that are weights.

    Raises:
        ValueError: a negative number, or one that isn't finite in single precision.
    """
    for name, value in options.items():
        if not 0.0 <= value <= _LARGEST:
            raise ValueError(f"{name}={value}: expected a finite number, 0 or more")


def check_beginning(
    decoder: Decoder, state: Any, memory: Any, start: Tensor, stop: int | None, forbidden: Sequence[int]
) -> None:
    """Check the state, the memory and the tokens that a search starts with.

    Raises:
        ShapeError: a state or a memory of another batch than the first tokens.
        ValueError: unknown tokens, or a decoder that is recorded.
    """
    refuse_recording(decoder)
    expect(start, f"batch {decoder.input_axes}", name="start")
    tokens_expected = decoder.input_axes == ""
    if tokens_expected and (start.is_floating_point() or start.is_complex() or start.dtype == torch.bool):
        raise ValueError(f"start is {start.dtype}, expected token ids, which are integers")
    for name, part in (("state", state), ("memory", memory)):
        for leaf in leaves(part):
            if leaf.dim() == 0 or len(leaf) != len(start):
                raise ShapeError(f"the {name} has a tensor of shape {tuple(leaf.shape)}, expected {len(start)} rows")
    if not tokens_expected:
        return
    size = decoder.vocabulary_size
    named = {"stop": [] if stop is None else [stop], "forbidden": list(forbidden)}
    named["start"] = [int(extreme) for extreme in start.long().aminmax()] if len(start) else []
    for name, tokens in named.items():
        wrong = [token for token in tokens if not 0 <= token < size]
        if wrong:
            raise ValueError(f"{name} contains {wrong[0]}, but the decoder has the tokens 0 to {size - 1}")


def undefined(scores: Tensor) -> Tensor:
    """Return a mask (rows,) of undefined log probabilities (rows, vocabulary): a logit was NaN or +∞, or all were −∞.

    Softmax makes the whole row NaN in each of these cases, so one element suffices.
    """
    return scores[:, 0].isnan()


class RowError(ValueError):
    """An error that concerns one row of a batch.

    Attributes:
        row: index of the row in the batch.
        reason: the message without the row.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}: {reason}")
        self.row, self.reason = row, reason


def undefined_row(row: int) -> RowError:
    """Return the error for a row with undefined logits."""
    return RowError(row, "the decoder's logits are NaN or infinite; check its weights and its inputs")


def blocked_row(row: int) -> RowError:
    """Return the error for a row for which the options allow no token."""
    return RowError(row, "no token is allowed; lower min_length, or set no_repeat_ngram_size to 0")


def per_row(value: int | Tensor, like: Tensor, name: str) -> Tensor:
    """Return a bound for each row, (batch,) int64.

    Args:
        value: one bound for all rows, or (batch,).
        like: (batch,), a tensor with the batch size and the device.
        name: name of the bound, for the error message.

    Raises:
        ValueError: a negative bound, or one that isn't an integer.
        ShapeError: bounds of another batch.
    """
    bounds = torch.as_tensor(value, device=like.device)
    if bounds.is_floating_point() or bounds.is_complex():
        raise ValueError(f"{name}={value}: expected a number of tokens, 0 or more")
    bounds = bounds.long()
    if bounds.dim() == 0:
        bounds = bounds.expand(len(like))
    expect(bounds, "batch", batch=len(like), name=name)
    if len(bounds) and int(bounds.min()) < 0:
        raise ValueError(f"{name}={int(bounds.min())}: expected a number of tokens, 0 or more")
    return bounds


def forbid(scores: Tensor, tokens: Sequence[int]) -> Tensor:
    """Return scores (rows, vocabulary) with −∞ for some tokens."""
    if not tokens:
        return scores
    return scores.index_fill(1, torch.tensor(list(tokens), device=scores.device), -torch.inf)


def forbid_repeats(scores: Tensor, written: Tensor, size: int) -> Tensor:
    """Return scores (rows, vocabulary) with −∞ for tokens that would repeat an n-gram.

    Args:
        scores: scores of the next token.
        written: (rows, length) tokens so far.
        size: n; 0 for no limit.
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
