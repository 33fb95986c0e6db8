"""Attention: at each step, a query of the decoder gives a weighted mean of the encoder's outputs.

    e_ti = score(query_t, key_i)
    a_t = softmax(e_t)               over the valid part of the source
    context_t = Σ_i a_ti value_i

Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", eq. 5-6. The classes
differ in the score. A state that is carried from step to step (coverage, location) is an argument and a result.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrolled.layers.encoded import Encoded
from unrolled.sequences import all_full, mask_from_lengths
from unrolled.shapes import expect
from unrolled.state import state_at


class Memory(NamedTuple):
    """A source prepared once for all steps of attention. Axis 0 of every tensor is the batch."""

    keys: Tensor  # (batch, source, key)
    values: Tensor  # (batch, source, value), zero in the padding
    mask: Tensor  # (batch, source) bool, true where valid
    tokens: Tensor | None = None  # (batch, source): token ids, if the source has any


class Attended(NamedTuple):
    """The result of attention. From `over_time`, context and weights have a time axis after the batch."""

    context: Tensor  # (batch, value)
    weights: Tensor | None  # (batch, source), None without weights
    state: Any  # the state for the next step


class Attention(nn.Module, ABC):
    """Base class of attention. Rows with an empty source get a zero context and zero weights. Padding has no effect.

    A subclass implements `prepare` and `forward`. With weights over the source, subclass `SoftAttention` instead.

    Args:
        source_size: number of features of `Encoded.values` and of `Encoded.summary`.
        query_size: number of features of a query.

    Raises:
        ValueError: a size below one.
    """

    has_weights = True  # whether it returns attention weights

    def __init__(self, source_size: int, query_size: int) -> None:
        super().__init__()
        _check_sizes(source_size=source_size, query_size=query_size)
        self.source_size = source_size
        self.query_size = query_size
        self.value_size = source_size

    @abstractmethod
    def prepare(self, encoded: Encoded) -> Memory:
        """Compute everything that depends only on the source."""

    def start(self, memory: Memory) -> Any:
        """Return the state before the first step; None without a state."""
        return None

    @abstractmethod
    def forward(self, query: Tensor, memory: Memory, state: Any) -> Attended:
        """Compute context (batch, value), weights (batch, source) and next state for a query (batch, query)."""

    def over_time(self, queries: Tensor, memory: Memory, state: Any, lengths: Tensor | None = None) -> Attended:
        """Compute all steps for queries (batch, time, query) that don't depend on the contexts.

        The resulting state is that after each row's last valid step. `lengths` (batch,) are those of the queries.
        """
        steps: list[Attended] = []
        states = [state]
        for query in queries.unbind(1):
            steps.append(self(query, memory, states[-1]))
            states.append(steps[-1].state)
        context = torch.stack([step.context for step in steps], dim=1)
        weights = [step.weights for step in steps if step.weights is not None]
        return Attended(context, torch.stack(weights, dim=1) if weights else None, state_at(states, lengths))


class SummaryAttention(Attention):
    """No attention: the context of every step is the summary of the source (Cho et al. 2014, eq. 1-2 and 5)."""

    has_weights = False

    def prepare(self, encoded: Encoded) -> Memory:
        """Return a memory with one position, the summary (batch, source_size)."""
        summary = encoded.summary
        expect(summary, "batch summary", summary=self.source_size, name="encoded.summary")
        value = summary.unsqueeze(1)
        return Memory(value, value, torch.ones(summary.shape[0], 1, dtype=torch.bool, device=summary.device))

    def forward(self, query: Tensor, memory: Memory, state: Any) -> Attended:
        """Return the summary for any query."""
        return Attended(memory.values[:, 0], None, state)

    def over_time(self, queries: Tensor, memory: Memory, state: Any, lengths: Tensor | None = None) -> Attended:
        """Return the summary at every step."""
        return Attended(memory.values.expand(-1, queries.shape[1], -1), None, state)


def masked_source(encoded: Encoded, source_size: int) -> tuple[Tensor, Tensor]:
    """Return the values of a source (batch, source, source_size), zero in the padding, and their mask (batch, source).

    Raises:
        ShapeError: another number of features.
    """
    values = encoded.values
    expect(values, "batch source features", features=source_size, name="encoded.values")
    batch, source, _ = values.shape
    if encoded.lengths is None or all_full(encoded.lengths, batch, source):
        return values, torch.ones(batch, source, dtype=torch.bool, device=values.device)
    mask = mask_from_lengths(encoded.lengths.to(values.device), source)
    # A zero weight is not enough: zero times NaN is NaN.
    return values.masked_fill(~mask.unsqueeze(-1), 0.0), mask


class SoftAttention(Attention):
    """Attention with a weighted mean of the values. Subclasses implement `keys` and `score`."""

    at_once = True  # whether one call of `score` can compute all steps

    @abstractmethod
    def keys(self, values: Tensor) -> Tensor:
        """Compute keys (batch, source, key) from values (batch, source, value), once for all steps."""

    @abstractmethod
    def score(self, queries: Tensor, memory: Memory, state: Any) -> Tensor:
        """Compute scores (batch, time, source) of queries (batch, time, query). Time is 1 without `at_once`."""

    def next_state(self, weights: Tensor, state: Any) -> Any:
        """Return the state after a step with weights (batch, source)."""
        return state

    def prepare(self, encoded: Encoded) -> Memory:
        """Return keys, values and mask of a source with values (batch, source, source_size)."""
        values, mask = masked_source(encoded, self.source_size)
        return Memory(self.keys(values), values, mask, encoded.tokens)

    def forward(self, query: Tensor, memory: Memory, state: Any) -> Attended:
        """Compute context (batch, value), weights (batch, source) and next state for a query (batch, query)."""
        expect(query, "batch query", query=self.query_size, name="query")
        context, weights = self._attend(query.unsqueeze(1), memory, state)
        weights = weights.squeeze(1)
        return Attended(context.squeeze(1), weights, self.next_state(weights, state))

    def over_time(self, queries: Tensor, memory: Memory, state: Any, lengths: Tensor | None = None) -> Attended:
        """Compute all steps, in one matrix product where `at_once` is set."""
        if not self.at_once:
            return super().over_time(queries, memory, state, lengths)
        expect(queries, "batch time query", query=self.query_size, name="queries")
        return Attended(*self._attend(queries, memory, state), state)

    def _attend(self, queries: Tensor, memory: Memory, state: Any) -> tuple[Tensor, Tensor]:
        padding = ~memory.mask.unsqueeze(1)
        scores = self.score(queries, memory, state)
        # The smallest finite number and zeros afterwards, not −inf, which would give NaN for a row without a source.
        scores = scores.masked_fill(padding, torch.finfo(scores.dtype).min)
        precision = torch.promote_types(scores.dtype, torch.float32)
        weights = scores.softmax(-1, dtype=precision).masked_fill(padding, 0.0)
        return weights.to(memory.values.dtype) @ memory.values, weights


class DotAttention(SoftAttention):
    """Dot-product attention, score(q, v) = q · v (Luong et al. 2015, eq. 8, "dot").

    Args:
        source_size: number of features of the source.
        query_size: number of features of a query.
        scaled: whether scores are divided by √size (Vaswani et al. 2017, eq. 1).

    Raises:
        ValueError: different sizes.
    """

    def __init__(self, source_size: int, query_size: int, *, scaled: bool = False) -> None:
        super().__init__(source_size, query_size)
        if source_size != query_size:
            raise ValueError(
                f"a dot product needs equal sizes of query and source, got query_size={query_size} and "
                f"source_size={source_size}; MultiplicativeAttention supports any sizes"
            )
        self.scaled = scaled

    def keys(self, values: Tensor) -> Tensor:
        """Return the values, divided by √size if scaled."""
        return values * self.source_size**-0.5 if self.scaled else values

    def score(self, queries: Tensor, memory: Memory, state: Any) -> Tensor:
        """Compute scores (batch, time, source) of queries (batch, time, size)."""
        return queries @ memory.keys.transpose(1, 2)


class MultiplicativeAttention(SoftAttention):
    """Multiplicative attention, score(q, v) = q · W v.

    Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", eq. 8, "general".
    """

    def __init__(self, source_size: int, query_size: int) -> None:
        super().__init__(source_size, query_size)
        self.key = nn.Linear(source_size, query_size, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        """Compute W v (batch, source, query)."""
        return self.key(values)

    def score(self, queries: Tensor, memory: Memory, state: Any) -> Tensor:
        """Compute scores (batch, time, source) of queries (batch, time, query)."""
        return queries @ memory.keys.transpose(1, 2)


class TanhAttention(SoftAttention):
    """Base class of attention with score(q, v_i) = w · tanh(W q + b + U v_i + state features of position i).

    Args:
        source_size: number of features of the source.
        query_size: number of features of a query.
        attention_size: number of units of the tanh layer; None for query_size.

    Raises:
        ValueError: a size below one.
    """

    # With a state, a step depends on the previous one. Without, all steps at once would need memory for (batch, time,
    # source, attention) numbers.
    at_once = False
    uses_state = False  # whether scores depend on earlier weights

    def __init__(self, source_size: int, query_size: int, attention_size: int | None) -> None:
        super().__init__(source_size, query_size)
        size = query_size if attention_size is None else attention_size
        _check_sizes(attention_size=size)
        self.attention_size = size
        self.query = nn.Linear(query_size, size)
        self.key = nn.Linear(source_size, size, bias=False)
        self.energy = nn.Linear(size, 1, bias=False)

    @abstractmethod
    def state_features(self, state: Any) -> Tensor | None:
        """Compute features (batch, source, attention) of a state (batch, source); None without a state."""

    def start(self, memory: Memory) -> Tensor | None:
        """Return zeros (batch, source), or None without a state."""
        if not self.uses_state:
            return None
        precision = torch.promote_types(memory.keys.dtype, torch.float32)  # the dtype of the weights
        return memory.keys.new_zeros(memory.mask.shape, dtype=precision)

    def keys(self, values: Tensor) -> Tensor:
        """Compute 2 U v (batch, source, attention); see `score` for the factor."""
        return 2 * self.key(values)

    def score(self, queries: Tensor, memory: Memory, state: Any) -> Tensor:
        """Compute scores (batch, 1, source) of queries (batch, 1, query), up to a constant that softmax cancels.

        It uses w · tanh(z) = 2 w · σ(2 z) − Σw. On the CPU the sigmoid takes a sixth of the time of tanh, which would
        be the most expensive operation here.
        """
        doubled = torch.add(memory.keys, self.query(queries), alpha=2)
        if state is not None:
            expect(state, "batch source", batch=memory.mask.shape[0], source=memory.mask.shape[1], name="state")
        features = self.state_features(state)
        if features is not None:
            doubled = torch.add(doubled, features, alpha=2)
        return 2 * self.energy(doubled.sigmoid_()).transpose(1, 2)  # in place: the sum isn't used elsewhere


class AdditiveAttention(TanhAttention):
    """Additive attention, score(q, v) = w · tanh(W q + b + U v), Bahdanau et al. 2015, appendix A.1.2.

    With coverage, u c_ti is added inside the tanh, where c_t is the sum of all earlier weights (See et al. 2017, "Get
    To The Point: Summarization with Pointer-Generator Networks", eq. 10-11). The state is c_t.

    Args:
        source_size: number of features of the source.
        query_size: number of features of a query.
        attention_size: number of units of the tanh layer; query_size by default.
        coverage: whether the score depends on the sum of earlier weights.

    Raises:
        ValueError: a size below one.
    """

    def __init__(
        self, source_size: int, query_size: int, *, attention_size: int | None = None, coverage: bool = False
    ) -> None:
        super().__init__(source_size, query_size, attention_size)
        self.uses_state = coverage
        self.coverage = nn.Linear(1, self.attention_size, bias=False) if coverage else None

    def state_features(self, state: Tensor | None) -> Tensor | None:
        """Compute u c_t, the features of the sum of earlier weights."""
        if self.coverage is None or state is None:
            return None
        return self.coverage(state.unsqueeze(-1).to(self.coverage.weight.dtype))

    def next_state(self, weights: Tensor, state: Tensor | None) -> Tensor | None:
        """Return c_t + a_t."""
        return None if state is None else state + weights


class LocationAttention(TanhAttention):
    """Location-sensitive attention, score_i = w · tanh(W q + b + U v_i + V f_i), where f = F ∗ a_{t-1}.

    The score depends on the previous weights. Chorowski et al. 2015, "Attention-Based Models for Speech Recognition",
    eq. 8-9. The state is a_{t-1}, or the sum of all earlier weights (Shen et al. 2018, "Natural TTS Synthesis", section
    2.2). It is zero before the first step.

    Args:
        source_size: number of features of the source.
        query_size: number of features of a query.
        attention_size: number of units of the tanh layer; query_size by default.
        kernel_size: width of the convolution over the source, an odd number.
        filters: number of features of f_i.
        coverage: whether the sum of all earlier weights is convolved instead of the last weights.

    Raises:
        ValueError: a size below one, or an even kernel_size.
    """

    uses_state = True

    def __init__(
        self,
        source_size: int,
        query_size: int,
        *,
        attention_size: int | None = None,
        kernel_size: int = 31,
        filters: int = 10,
        coverage: bool = False,
    ) -> None:
        super().__init__(source_size, query_size, attention_size)
        _check_sizes(kernel_size=kernel_size, filters=filters)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}, expected an odd number, so that it has a center")
        self.convolution = nn.Conv1d(1, filters, kernel_size, padding=kernel_size // 2, bias=False)
        self.location = nn.Linear(filters, self.attention_size, bias=False)
        self.coverage = coverage

    def state_features(self, state: Tensor) -> Tensor | None:
        """Compute V f, the features of the convolved weights; None for an empty source, which Conv1d can't process."""
        if state.shape[1] == 0:
            return None
        features = self.convolution(state.unsqueeze(1).to(self.convolution.weight.dtype))
        return self.location(features.transpose(1, 2))

    def next_state(self, weights: Tensor, state: Tensor) -> Tensor:
        """Return a_t, or the sum of all weights with coverage."""
        return state + weights if self.coverage else weights


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}, expected 1 or more")
