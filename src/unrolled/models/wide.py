"""A linear path from the words of a text to the output, beside a network."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from unrolled.sequences import mask_from_lengths
from unrolled.shapes import expect
from unrolled.state import check, outline

MULTIPLIER = 1_000_003  # a prime, which spreads the first word of a pair over all buckets


class WideState(NamedTuple):
    """The state of a `WidePath` after some tokens."""

    previous: Tensor  # (batch,) int64: the last token; −1 before the first
    total: Tensor  # (batch, outputs): sum of the weights of all tokens and pairs
    number: Tensor  # (batch, 1): number of tokens and pairs


class WidePath(nn.Module):
    """Computes the mean weight of a text's tokens and pairs of tokens, to be added to a head's parameters.

    Each token and each bucket, to which pairs of successive tokens are hashed, has a weight per output, as in fastText
    (Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification"). All weights start at zero, so the path adds
    nothing to an untrained network. They need a greater learning rate than the network's.

    Args:
        output_size: number of the head's parameters.
        vocabulary_size: number of token ids.
        num_buckets: number of weights that all pairs share by a hash of their ids; 0 for no pairs.

    Raises:
        ValueError: a size below one, a negative number of buckets.
    """

    def __init__(self, output_size: int, vocabulary_size: int, num_buckets: int = 2**17) -> None:
        super().__init__()
        if min(output_size, vocabulary_size) < 1 or num_buckets < 0:
            raise ValueError(
                f"output_size={output_size} and vocabulary_size={vocabulary_size} must be 1 or more, "
                f"num_buckets={num_buckets} 0 or more"
            )
        self.output_size, self.num_buckets = output_size, num_buckets
        self.tokens = nn.Embedding(vocabulary_size, output_size)
        self.pairs = nn.Embedding(num_buckets, output_size) if num_buckets else None
        for part in (self.tokens, self.pairs):
            if part is not None:
                nn.init.zeros_(part.weight)

    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return (batch, outputs) for ids (batch, time) with lengths (batch,); zeros for an empty text."""
        expect(source, "batch time", name="source")
        batch, time = source.shape
        if lengths is None:
            lengths = torch.full((batch,), time, device=source.device)
        mask = mask_from_lengths(lengths.to(source.device), time)
        total = self._masked(self.tokens(source.masked_fill(~mask, 0)), mask)
        count = mask.sum(1, keepdim=True)
        if self.pairs is not None and time > 1:
            # As many as tokens, and the last one masked: an exported program cannot vary a size time − 1 that may be 1.
            paired = mask_from_lengths(lengths.to(source.device, torch.int64) - 1, time)
            pairs = self._buckets(source, source.roll(-1, 1)).masked_fill(~paired, 0)
            total = total + self._masked(self.pairs(pairs), paired)
            count = count + paired.sum(1, keepdim=True)
        return total / count.clamp(min=1)

    def initial_state(self, batch: int, *, like: Tensor) -> WideState:
        """Return the state before the first token."""
        previous = torch.full((batch,), -1, dtype=torch.int64, device=like.device)
        return WideState(previous, like.new_zeros(batch, self.output_size), like.new_zeros(batch, 1))

    def step(self, source: Tensor, state: WideState) -> tuple[Tensor, WideState]:
        """Add a token (batch,); return (batch, outputs) for all tokens so far, and the next state."""
        expect(source, "batch", name="source")
        like = self.tokens.weight.new_zeros(source.shape[0], 1)
        check(state, outline(self.initial_state(1, like=like), like=like), like=like, name="state.wide")
        total, count = state.total + self.tokens(source), state.number + 1
        if self.pairs is not None:
            second = state.previous >= 0
            pairs = self._buckets(state.previous.clamp(min=0), source)
            total = total + self.pairs(pairs) * second.unsqueeze(1)
            count = count + second.unsqueeze(1)
        return total / count, WideState(source.long(), total, count)

    def _buckets(self, first: Tensor, second: Tensor) -> Tensor:
        return (first.long() * MULTIPLIER + second.long()) % self.num_buckets

    def _masked(self, weights: Tensor, mask: Tensor) -> Tensor:
        return (weights * mask.unsqueeze(-1)).sum(1)
