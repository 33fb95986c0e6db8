"""Copying from the source: a mixture of generating from the vocabulary and pointing at source tokens."""

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid, softplus

from unrolled.layers.attention import Memory


class CopyMixture(nn.Module):
    """Computes log p(w) with p(w) = g p_vocabulary(w) + (1 − g) Σ_{i: w_i = w} a_i and g = σ(w · features + b).

    See et al. 2017, "Get To The Point: Summarization with Pointer-Generator Networks", eq. 8-9. Source and target share
    one vocabulary, so there are no out-of-vocabulary words. For a row with an empty source, g is 1.

    Args:
        features_size: number of features that determine g.
    """

    def __init__(self, features_size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(features_size, 1)

    def forward(self, logits: Tensor, features: Tensor, weights: Tensor, memory: Memory) -> Tensor:
        """Compute log probabilities (batch, time, vocabulary).

        Args:
            logits: (batch, time, vocabulary), of generating from the vocabulary.
            features: (batch, time, features_size).
            weights: (batch, time, source), the attention weights.
            memory: a memory with the source's token ids.

        Raises:
            ValueError: a memory without tokens.
        """
        if memory.tokens is None:
            raise ValueError("copy=True needs the token ids of the source, and encoded.tokens is None")
        precision = torch.promote_types(logits.dtype, torch.float32)
        gate = self.gate(features).to(precision)
        written = log_softmax(logits, -1, dtype=precision) + self._log_generation_probability(gate, memory)
        if memory.tokens.shape[1] == 0:
            return written
        tokens = memory.tokens.masked_fill(~memory.mask, 0)
        same = (tokens.unsqueeze(2) == tokens.unsqueeze(1)) & memory.mask.unsqueeze(2) & memory.mask.unsqueeze(1)
        # A word with several occurrences gets the sum of their weights, added at its first occurrence.
        first = memory.mask & ~same.tril(-1).any(dim=2)
        looked_at = weights.to(precision) @ same.to(precision)
        pointed = looked_at.clamp_min(torch.finfo(precision).tiny).log() + logsigmoid(-gate)
        places = tokens.unsqueeze(1).expand_as(pointed)
        # log(e^x + e^y) = x + softplus(y − x): only words of the source change.
        gain = softplus(pointed - written.gather(-1, places)).masked_fill(~first.unsqueeze(1), 0.0)
        return written.scatter_add(-1, places, gain)

    def _log_generation_probability(self, gate: Tensor, memory: Memory) -> Tensor:
        nothing_to_copy = ~memory.mask.any(dim=1)
        return logsigmoid(gate).masked_fill(nothing_to_copy[:, None, None], 0.0)
