"""Attention: at each step a decoder asks, and gets a weighted mean of what an encoder said.

    e_ti = score(query_t, key_i)
    a_t = softmax(e_t)               over the valid part of the source
    context_t = Σ_i a_ti value_i

Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", eq. 5-6. The classes
differ in the score. What they remember from step to step (coverage, location) is a value that goes in and comes out.
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
    """A source prepared for attention, once for all steps. Every leaf has the batch on axis 0."""

    keys: Tensor  # (batch, source, key)
    values: Tensor  # (batch, source, value), zero in the padding
    mask: Tensor  # (batch, source) bool, true where valid
    tokens: Tensor | None = None  # (batch, source): ids of the source where there are any


class Attended(NamedTuple):
    """What attention found; with a time axis behind the batch from `over_time`."""

    context: Tensor  # (batch, value)
    weights: Tensor | None  # (batch, source), None where there is nothing to weigh
    state: Any  # what the next step wants


class Attention(nn.Module, ABC):
    """Queries about a source. Rows without a source get a zero context and zero weights; padding never matters.

    A new one needs `prepare` and `forward`; with weights over the source, `SoftAttention` asks for less.

    Args:
        source_size: features of `Encoded.values`, and of `Encoded.summary`.
        query_size: features of a query.

    Raises:
        ValueError: a size below one.
    """

    weighs = True  # whether it says how much it looked at each place of the source

    def __init__(self, source_size: int, query_size: int) -> None:
        super().__init__()
        _check_sizes(source_size=source_size, query_size=query_size)
        self.source_size = source_size
        self.query_size = query_size
        self.value_size = source_size

    @abstractmethod
    def prepare(self, encoded: Encoded) -> Memory:
        """Everything that depends on the source alone."""

    def start(self, memory: Memory) -> Any:
        """What is remembered before the first step: a state, None where nothing is."""
        return None

    @abstractmethod
    def forward(self, query: Tensor, memory: Memory, state: Any) -> Attended:
        """One step: query (batch, query) -> context (batch, value), weights (batch, source), the next state."""

    def over_time(self, queries: Tensor, memory: Memory, state: Any, lengths: Tensor | None = None) -> Attended:
        """Repeated steps with queries (batch, time, query), none of which waits for what attention finds.

        The state is that behind each row's last valid step; `lengths` (batch,) are those of the queries.
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
    """No attention: every step is given the summary of the source (Cho et al. 2014, eq. 1-2 and 5)."""

    weighs = False

    def prepare(self, encoded: Encoded) -> Memory:
        """A memory of one place, which holds the summary (batch, source_size)."""
        summary = encoded.summary
        expect(summary, "batch summary", summary=self.source_size, name="encoded.summary")
        value = summary.unsqueeze(1)
        return Memory(value, value, torch.ones(summary.shape[0], 1, dtype=torch.bool, device=summary.device))

    def forward(self, query: Tensor, memory: Memory, state: Any) -> Attended:
        """The summary, whatever the query."""
        return Attended(memory.values[:, 0], None, state)

    def over_time(self, queries: Tensor, memory: Memory, state: Any, lengths: Tensor | None = None) -> Attended:
        """The summary at every step."""
        return Attended(memory.values.expand(-1, queries.shape[1], -1), None, state)


class SoftAttention(Attention):
    """A weighted mean of the values. Subclasses say what the keys are, and how queries score them."""

    at_once = True  # whether all steps may be scored in one call of `score`

    @abstractmethod
    def keys(self, values: Tensor) -> Tensor:
        """Values (batch, source, value) -> keys (batch, source, key), once for all steps."""

    @abstractmethod
    def score(self, queries: Tensor, memory: Memory, state: Any) -> Tensor:
        """Queries (batch, time, query) -> scores (batch, time, source). Time is 1 without `at_once`."""

    def remember(self, weights: Tensor, state: Any) -> Any:
        """The state behind a step with weights (batch, source)."""
        return state

    def prepare(self, encoded: Encoded) -> Memory:
        """Keys and values of a source with values (batch, source, source_size)."""
        values = encoded.values
        expect(values, "batch source features", features=self.source_size, name="encoded.values")
        batch, source, _ = values.shape
        if encoded.lengths is None or all_full(encoded.lengths, batch, source):
            mask = torch.ones(batch, source, dtype=torch.bool, device=values.device)
        else:
            mask = mask_from_lengths(encoded.lengths.to(values.device), source)
            # A weight of zero alone would not do: zero times NaN is NaN.
            values = values.masked_fill(~mask.unsqueeze(-1), 0.0)
        return Memory(self.keys(values), values, mask, encoded.tokens)

    def forward(self, query: Tensor, memory: Memory, state: Any) -> Attended:
        """One step: query (batch, query) -> context (batch, value), weights (batch, source), the next state."""
        expect(query, "batch query", query=self.query_size, name="query")
        context, weights = self._attend(query.unsqueeze(1), memory, state)
        weights = weights.squeeze(1)
        return Attended(context.squeeze(1), weights, self.remember(weights, state))

    def over_time(self, queries: Tensor, memory: Memory, state: Any, lengths: Tensor | None = None) -> Attended:
        """As repeated steps; in one product where that is possible."""
        if not self.at_once:
            return super().over_time(queries, memory, state, lengths)
        expect(queries, "batch time query", query=self.query_size, name="queries")
        return Attended(*self._attend(queries, memory, state), state)

    def _attend(self, queries: Tensor, memory: Memory, state: Any) -> tuple[Tensor, Tensor]:
        padding = ~memory.mask.unsqueeze(1)
        scores = self.score(queries, memory, state)
        # The least finite number, not −inf, and zeros afterwards: a row without a source would be NaN.
        scores = scores.masked_fill(padding, torch.finfo(scores.dtype).min)
        precision = torch.promote_types(scores.dtype, torch.float32)
        weights = scores.softmax(-1, dtype=precision).masked_fill(padding, 0.0)
        return weights.to(memory.values.dtype) @ memory.values, weights


class DotAttention(SoftAttention):
    """score(q, v) = q · v, optionally over √size (Luong et al. 2015, eq. 8, "dot"; Vaswani et al. 2017, eq. 1).

    Args:
        source_size: features of the source.
        query_size: features of a query.
        scaled: divide the scores by √size.

    Raises:
        ValueError: sizes that differ.
    """

    def __init__(self, source_size: int, query_size: int, *, scaled: bool = False) -> None:
        super().__init__(source_size, query_size)
        if source_size != query_size:
            raise ValueError(
                f"a dot product needs a query as wide as the source, got query_size={query_size} and "
                f"source_size={source_size}; MultiplicativeAttention takes any sizes"
            )
        self.scaled = scaled

    def keys(self, values: Tensor) -> Tensor:
        """The values, over √size if scaled."""
        return values * self.source_size**-0.5 if self.scaled else values

    def score(self, queries: Tensor, memory: Memory, state: Any) -> Tensor:
        """(batch, time, size) -> (batch, time, source)."""
        return queries @ memory.keys.transpose(1, 2)


class MultiplicativeAttention(SoftAttention):
    """score(q, v) = q · W v (Luong et al. 2015, "Effective Approaches to Attention-based NMT", eq. 8, "general")."""

    def __init__(self, source_size: int, query_size: int) -> None:
        super().__init__(source_size, query_size)
        self.key = nn.Linear(source_size, query_size, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        """W v (batch, source, query)."""
        return self.key(values)

    def score(self, queries: Tensor, memory: Memory, state: Any) -> Tensor:
        """(batch, time, query) -> (batch, time, source)."""
        return queries @ memory.keys.transpose(1, 2)


class TanhAttention(SoftAttention):
    """score(q, v_i) = w · tanh(W q + b + U v_i + what is remembered of place i): what its subclasses share.

    Args:
        source_size: features of the source.
        query_size: features of a query.
        attention_size: units of the tanh layer; query_size where it is None.

    Raises:
        ValueError: a size below one.
    """

    # One step needs what was remembered at the last; and where nothing is remembered, all at once would hold (batch,
    # time, source, attention) numbers together.
    at_once = False
    remembers = False  # whether scores depend on earlier weights

    def __init__(self, source_size: int, query_size: int, attention_size: int | None) -> None:
        super().__init__(source_size, query_size)
        size = query_size if attention_size is None else attention_size
        _check_sizes(attention_size=size)
        self.attention_size = size
        self.query = nn.Linear(query_size, size)
        self.key = nn.Linear(source_size, size, bias=False)
        self.energy = nn.Linear(size, 1, bias=False)

    @abstractmethod
    def remembered(self, state: Any) -> Tensor | None:
        """A state (batch, source) -> features (batch, source, attention); None for none."""

    def start(self, memory: Memory) -> Tensor | None:
        """Nothing has been looked at: zeros (batch, source), or None where nothing is remembered."""
        if not self.remembers:
            return None
        precision = torch.promote_types(memory.keys.dtype, torch.float32)  # that of the weights
        return memory.keys.new_zeros(memory.mask.shape, dtype=precision)

    def keys(self, values: Tensor) -> Tensor:
        """2 U v (batch, source, attention); see `score` for the 2."""
        return 2 * self.key(values)

    def score(self, queries: Tensor, memory: Memory, state: Any) -> Tensor:
        """(batch, 1, query) -> (batch, 1, source), up to a constant that the softmax doesn't see.

        w · tanh(z) = 2 w · σ(2 z) − Σw, and on the CPU the logistic function takes a sixth of the time of tanh, which
        would be the dearest thing here.
        """
        doubled = torch.add(memory.keys, self.query(queries), alpha=2)
        if state is not None:
            expect(state, "batch source", batch=len(memory.mask), source=memory.mask.shape[1], name="state")
        remembered = self.remembered(state)
        if remembered is not None:
            doubled = torch.add(doubled, remembered, alpha=2)
        return 2 * self.energy(doubled.sigmoid_()).transpose(1, 2)  # in place: nothing else wants the sum


class AdditiveAttention(TanhAttention):
    """score(q, v) = w · tanh(W q + b + U v), Bahdanau et al. 2015, appendix A.1.2.

    With coverage, u c_ti joins the sum in the tanh, where c_t is the sum of all earlier weights (See et al. 2017, "Get
    To The Point: Summarization with Pointer-Generator Networks", eq. 10-11). The state is c_t.

    Args:
        source_size: features of the source.
        query_size: features of a query.
        attention_size: units of the tanh layer; query_size by default.
        coverage: let the score know how much each place was looked at before.

    Raises:
        ValueError: a size below one.
    """

    def __init__(
        self, source_size: int, query_size: int, *, attention_size: int | None = None, coverage: bool = False
    ) -> None:
        super().__init__(source_size, query_size, attention_size)
        self.remembers = coverage
        self.coverage = nn.Linear(1, self.attention_size, bias=False) if coverage else None

    def remembered(self, state: Tensor | None) -> Tensor | None:
        """The sum of earlier weights as features, u c_t."""
        if self.coverage is None or state is None:
            return None
        return self.coverage(state.unsqueeze(-1).to(self.coverage.weight.dtype))

    def remember(self, weights: Tensor, state: Tensor | None) -> Tensor | None:
        """c_t + a_t."""
        return None if state is None else state + weights


class LocationAttention(TanhAttention):
    """score_i = w · tanh(W q + b + U v_i + V f_i), where f = F ∗ a_{t-1}: it knows where it looked before.

    Chorowski et al. 2015, "Attention-Based Models for Speech Recognition", eq. 8-9. The state is a_{t-1}, or the sum of
    all earlier weights (Shen et al. 2018, "Natural TTS Synthesis", section 2.2); zeros before the first step.

    Args:
        source_size: features of the source.
        query_size: features of a query.
        attention_size: units of the tanh layer; query_size by default.
        kernel_size: width of the convolution over the source, an odd number.
        filters: features of f_i.
        coverage: convolve the sum of all earlier weights instead of the last ones.

    Raises:
        ValueError: a size below one, or an even kernel_size.
    """

    remembers = True

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
            raise ValueError(f"kernel_size is {kernel_size}, expected an odd number, which has a middle")
        self.convolution = nn.Conv1d(1, filters, kernel_size, padding=kernel_size // 2, bias=False)
        self.location = nn.Linear(filters, self.attention_size, bias=False)
        self.coverage = coverage

    def remembered(self, state: Tensor) -> Tensor | None:
        """The convolved weights as features, V f; None of an empty source, which a convolution refuses."""
        if state.shape[1] == 0:
            return None
        features = self.convolution(state.unsqueeze(1).to(self.convolution.weight.dtype))
        return self.location(features.transpose(1, 2))

    def remember(self, weights: Tensor, state: Tensor) -> Tensor:
        """a_t, or the sum so far."""
        return state + weights if self.coverage else weights


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}, expected 1 or more")
