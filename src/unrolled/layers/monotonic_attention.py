"""Hard monotonic attention: a prediction reads one source position, never before the last, and all choices are summed.

    p(a_t = j | a_{t-1} = i) = exp(e_tj) / Σ_{k ≥ i} exp(e_tk)  for j ≥ i, otherwise 0
    p(y_t | y_<t) = Σ_j p(a_t = j | y_<t) p(y_t | a_t = j, y_<t)

Wu & Cotterell 2019, "Exact Hard Monotonic Attention for Character-Level Transduction", arXiv 1905.06319. An alignment
is a path of a hidden Markov model, so the forward algorithm sums over all of them. It is normalized at each step: the
position's distribution given the tokens so far is part of the state, and a decoder predicts the next token exactly.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from unrolled.layers.attention import Attended, Memory, MultiplicativeAttention
from unrolled.layers.encoded import Encoded
from unrolled.sequences import mask_from_lengths
from unrolled.shapes import expect

_NEVER = -1e30  # the log of no probability: finite, since −∞ − (−∞) would give NaN


class Marginal(NamedTuple):
    """Predictions that are summed over all alignments."""

    log_probabilities: Tensor  # (batch, time, classes)
    weights: Tensor  # (batch, time, source): probability of each position before the token of the step is known
    state: Tensor  # (batch, source, classes): joint log probability of position and token at the last valid step


class HardMonotonicAttention(MultiplicativeAttention):
    """Sums over all monotonic alignments of predictions and source positions, with score(q, v) = q · W v.

    Before the first step the position is the first one. The state is the joint log probability of the last position
    and its token. The next step reads which token it was, so the position follows it. An `AutoregressiveDecoder` calls
    `marginalize` and has no input feeding: a step has a context for each position, and none that can be fed.

    Attributes:
        num_classes: number of token ids, which the decoder sets.
    """

    num_classes = 1

    def prepare(self, encoded: Encoded) -> Memory:
        """Return keys, values and mask of a source, which has at least one position."""
        memory = super().prepare(encoded)
        if memory.mask.shape[1]:
            return memory
        values = pad(memory.values, (0, 0, 0, 1))
        return Memory(self.keys(values), values, pad(memory.mask, (0, 1)), None)

    def start(self, memory: Memory) -> Tensor:
        """Return the state (batch, source, classes) before the first step: any token, read at the first position."""
        dtype = torch.promote_types(memory.values.dtype, torch.float32)
        joint = memory.values.new_full((*memory.mask.shape, self.num_classes), _NEVER, dtype=dtype)
        joint[:, 0] = 0.0
        return joint

    def forward(self, query: Tensor, memory: Memory, state: Tensor) -> Attended:
        """Raise an error, since a step has a context for each position.

        Raises:
            ValueError: always.
        """
        raise ValueError("hard monotonic attention has no single context; call marginalize(…)")

    def over_time(self, queries: Tensor, memory: Memory, state: Tensor, lengths: Tensor | None = None) -> Attended:
        """Raise an error; see `forward`."""
        return self(queries, memory, state)

    def marginalize(
        self,
        queries: Tensor,
        logits: Tensor,
        tokens: Tensor,
        memory: Memory,
        state: Tensor,
        lengths: Tensor | None = None,
    ) -> Marginal:
        """Sum the predictions of each step over all alignments.

        Args:
            queries: (batch, time, query).
            logits: (batch, time, source, classes) of the prediction at each position.
            tokens: (batch, time) token ids that the decoder has read, those of the last predictions.
            memory: the result of `prepare`.
            state: (batch, source, classes), that before the first step.
            lengths: (batch,) numbers of valid steps; None for all.
        """
        batch, time = queries.shape[:2]
        source = memory.mask.shape[1]
        expect(queries, "batch time query", query=self.query_size, name="queries")
        expect(logits, "batch time source classes", batch=batch, time=time, source=source, name="logits")
        expect(tokens, "batch time", batch=batch, time=time, name="tokens")
        emissions = logits.log_softmax(-1, dtype=state.dtype)
        index = tokens[:, :, None, None].expand(-1, -1, source, 1)
        observed = emissions[:, :-1].gather(-1, index[:, 1:]).squeeze(-1)  # (batch, time - 1, source)
        position = state.gather(-1, index[:, 0]).squeeze(-1)
        reachable = memory.mask | ~memory.mask.any(1, keepdim=True)  # everything, in a row without a source
        scores = self.score(queries, memory, None).to(state.dtype).masked_fill(~reachable.unsqueeze(1), _NEVER)
        remaining = scores.flip(-1).logcumsumexp(-1).flip(-1)
        priors: list[Tensor] = []
        for step, (score, rest) in enumerate(zip(scores.unbind(1), remaining.unbind(1), strict=True)):
            if step:
                position = priors[-1] + observed[:, step - 1]
            position = position.log_softmax(-1)  # given the token that was read
            prior = score + (position - rest).logcumsumexp(-1)
            priors.append(prior.masked_fill(~reachable, 2 * _NEVER))
        prior = torch.stack(priors, dim=1)
        valid = memory.mask.unsqueeze(1)
        if lengths is not None:
            valid = valid & mask_from_lengths(lengths.to(prior.device), time).unsqueeze(-1)
        weights = prior.exp().masked_fill(~valid, 0.0)
        log_probabilities = (prior.unsqueeze(-1) + emissions).logsumexp(2)
        return Marginal(log_probabilities, weights, _last(prior, emissions, state, lengths))


def _last(prior: Tensor, emissions: Tensor, state: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the joint log probability at each row's last valid step; the given state for a row without a step."""
    if lengths is None:
        return prior[:, -1].unsqueeze(-1) + emissions[:, -1]
    lengths = lengths.to(prior.device, torch.int64)
    rows, last = torch.arange(len(prior), device=prior.device), (lengths - 1).clamp(min=0)
    joint = prior[rows, last].unsqueeze(-1) + emissions[rows, last]
    return joint.where((lengths > 0).view(-1, 1, 1), state)
