"""Attention against its equations written out in loops, and against the laws that let a decoder rely on it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    AdditiveAttention,
    Attended,
    Attention,
    DotAttention,
    Encoded,
    LocationAttention,
    Memory,
    MultiplicativeAttention,
    ShapeError,
    SummaryAttention,
)
from unrolled.state import leaves, select

BATCH, SOURCE, TIME, SIZE = 4, 5, 3, 6
LENGTHS = torch.tensor([5, 3, 1, 0])

WEIGHING: dict[str, Callable[..., Attention]] = {
    "dot": DotAttention,
    "scaled": partial(DotAttention, scaled=True),
    "multiplicative": MultiplicativeAttention,
    "additive": partial(AdditiveAttention, attention_size=7),
    "coverage": partial(AdditiveAttention, coverage=True),
    "location": partial(LocationAttention, kernel_size=3, filters=2),
    "summed location": partial(LocationAttention, kernel_size=5, filters=2, coverage=True),
}
ATTENTIONS: dict[str, Callable[..., Attention]] = {**WEIGHING, "summary": SummaryAttention}


def build(name: str) -> Any:
    torch.manual_seed(0)
    attention = ATTENTIONS[name](source_size=SIZE, query_size=SIZE).double()
    for parameter in attention.parameters():
        nn.init.normal_(parameter)  # large enough that no score is lost in the softmax
    return attention


@pytest.fixture
def encoded(generator: torch.Generator) -> Encoded:
    values = torch.randn(BATCH, SOURCE, SIZE, dtype=torch.float64, generator=generator)
    summary = torch.randn(BATCH, SIZE, dtype=torch.float64, generator=generator)
    return Encoded(values, LENGTHS, summary, torch.randint(9, (BATCH, SOURCE), generator=generator))


@pytest.fixture
def queries(generator: torch.Generator) -> Tensor:
    return torch.randn(BATCH, TIME, SIZE, dtype=torch.float64, generator=generator)


def steps(attention: Any, queries: Tensor, encoded: Encoded) -> tuple[Tensor, Tensor | None, list[Any]]:
    """Contexts and weights over time and all states, the first one included, step by step."""
    memory = attention.prepare(encoded)
    contexts, weights, states = [], [], [attention.start(memory)]
    for query in queries.unbind(1):
        context, weight, state = attention(query, memory, states[-1])
        contexts.append(context)
        weights.append(weight)
        states.append(state)
    return torch.stack(contexts, 1), None if weights[0] is None else torch.stack(weights, 1), states


def score(attention: Any, name: str, query: Tensor, value: Tensor, place: int, earlier: list[Tensor]) -> Tensor:
    """The score of one place of one row, from the papers' equations; `earlier` weights (source,) of this row."""
    if name == "dot":
        return query @ value
    if name == "scaled":
        return query @ value / SIZE**0.5
    if name == "multiplicative":
        return torch.einsum("q,qv,v", query, attention.key.weight, value)
    inner = attention.query.weight @ query + attention.query.bias + attention.key.weight @ value
    if name == "coverage":
        inner = inner + attention.coverage.weight[:, 0] * sum(weights[place] for weights in earlier)
    if "location" in name:
        kernel = attention.convolution.weight[:, 0]  # (filters, width)
        looked_at = torch.zeros(SOURCE).double()
        if earlier:
            looked_at = sum(earlier, looked_at) if name == "summed location" else earlier[-1]
        middle = kernel.shape[1] // 2
        features = torch.zeros(len(kernel)).double()
        for offset in range(-middle, middle + 1):
            if 0 <= place + offset < SOURCE:
                features = features + kernel[:, middle + offset] * looked_at[place + offset]
        inner = inner + attention.location.weight @ features
    return attention.energy.weight[0] @ torch.tanh(inner)


@pytest.mark.parametrize("name", WEIGHING)
def test_weights_and_contexts_are_those_of_the_equations(name: str, encoded: Encoded, queries: Tensor) -> None:
    attention = build(name)

    contexts, weights, _ = steps(attention, queries, encoded)

    assert weights is not None
    for row, length in enumerate(LENGTHS.tolist()):
        earlier: list[Tensor] = []
        for time in range(TIME):
            values = encoded.values[row]
            scores = [score(attention, name, queries[row, time], values[i], i, earlier) for i in range(length)]
            expected = torch.zeros(SOURCE).double()
            if length:
                expected[:length] = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
            earlier.append(expected)
            torch.testing.assert_close(weights[row, time], expected, rtol=0, atol=1e-12)
            torch.testing.assert_close(contexts[row, time], expected @ values, rtol=0, atol=1e-12)


def test_the_summary_is_the_context_of_every_step(encoded: Encoded, queries: Tensor) -> None:
    contexts, weights, _ = steps(build("summary"), queries, encoded)

    assert torch.equal(contexts, encoded.summary.unsqueeze(1).expand(-1, TIME, -1))
    assert weights is None


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("lengths", [None, [3, 0, 1, 2]])
def test_all_steps_at_once_are_the_repeated_step(
    name: str, lengths: list[int] | None, encoded: Encoded, queries: Tensor
) -> None:
    attention = build(name)
    contexts, weights, states = steps(attention, queries, encoded)
    memory = attention.prepare(encoded)
    given = None if lengths is None else torch.tensor(lengths)

    whole = attention.over_time(queries, memory, attention.start(memory), given)

    torch.testing.assert_close(whole.context, contexts, rtol=0, atol=1e-13)
    torch.testing.assert_close(whole.weights, weights, rtol=0, atol=1e-13)
    for row in range(BATCH):
        behind = states[TIME if lengths is None else lengths[row]]
        for found, expected in zip(leaves(whole.state), leaves(behind), strict=True):
            torch.testing.assert_close(found[row], expected[row], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_gradients_are_those_of_finite_differences(name: str, encoded: Encoded, queries: Tensor) -> None:
    attention = build(name)

    def run(queries: Tensor, values: Tensor, summary: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        contexts, weights, _states = steps(attention, queries, encoded._replace(values=values, summary=summary))
        return (contexts,) if weights is None else (contexts, weights)

    inputs = [tensor.requires_grad_() for tensor in (queries, encoded.values, encoded.summary)]
    assert torch.autograd.gradcheck(run, [*inputs, *attention.parameters()])


@pytest.mark.parametrize("name", WEIGHING)
def test_padding_never_matters_not_even_nan(name: str, encoded: Encoded, queries: Tensor) -> None:
    attention = build(name)
    behind = torch.arange(SOURCE) >= LENGTHS.unsqueeze(1)
    poisoned = encoded.values.masked_fill(behind.unsqueeze(-1), torch.nan).requires_grad_()
    queries = queries.requires_grad_()

    clean, _, _ = steps(attention, queries, encoded)
    contexts, weights, _ = steps(attention, queries, encoded._replace(values=poisoned))
    gradients = torch.autograd.grad(contexts.square().sum(), [poisoned, queries, *attention.parameters()])

    assert torch.equal(contexts, clean)
    assert weights is not None
    assert not weights.masked_select(behind.unsqueeze(1)).any()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert not gradients[0][behind].any()


@pytest.mark.parametrize("name", WEIGHING)
def test_a_row_is_what_it_is_alone(name: str, encoded: Encoded, queries: Tensor) -> None:
    attention = build(name)
    contexts, weights, _ = steps(attention, queries, encoded)
    assert weights is not None

    for row, length in enumerate(LENGTHS.tolist()):
        own = slice(row, row + 1)
        alone = Encoded(encoded.values[own, :length], None, encoded.summary[own])
        context, weight, _ = steps(attention, queries[own], alone)
        torch.testing.assert_close(context, contexts[own], rtol=0, atol=1e-13)
        torch.testing.assert_close(weight, weights[own, :, :length], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", WEIGHING)
def test_nothing_to_look_at_is_a_zero_context_and_one_place_gets_all(
    name: str, encoded: Encoded, queries: Tensor
) -> None:
    contexts, weights, _ = steps(build(name), queries, encoded)

    assert weights is not None
    assert not contexts[3].any()
    assert not weights[3].any()
    assert torch.equal(weights[2, :, 0], torch.ones(TIME).double())
    torch.testing.assert_close(weights[:3].sum(-1), torch.ones(3, TIME).double(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_selecting_rows_commutes_with_a_step(name: str, encoded: Encoded, queries: Tensor) -> None:
    attention = build(name)
    memory = attention.prepare(encoded)
    state = attention(queries[:, 0], memory, attention.start(memory)).state
    rows = torch.tensor([2, 0, 0, 1, 3])

    after = select(attention(queries[:, 1], memory, state), rows)
    before = attention(queries[rows, 1], select(memory, rows), select(state, rows))

    for one, other in zip(leaves(before), leaves(after), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", WEIGHING)
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_keeps_its_weights_in_single(name: str, autocast: bool, encoded: Encoded) -> None:
    attention = build(name).float()
    encoded = Encoded(encoded.values.float() * 30, LENGTHS, encoded.summary.float())
    queries = encoded.values[:, :TIME]
    if not autocast:
        attention, queries = attention.bfloat16(), queries.bfloat16()
        encoded = encoded._replace(values=encoded.values.bfloat16())

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        contexts, weights, _ = steps(attention, queries, encoded)
        total = contexts.square().sum()
    gradients = torch.autograd.grad(total, list(attention.parameters())) if name not in ("dot", "scaled") else []

    assert weights is not None
    assert weights.dtype == torch.float32
    assert contexts.dtype == torch.bfloat16
    assert contexts.isfinite().all()
    # A few roundings of float32, which bfloat16 would miss by three digits.
    torch.testing.assert_close(weights[:3].sum(-1), torch.ones(3, TIME), rtol=0, atol=1e-6)
    assert all(gradient.isfinite().all() for gradient in gradients)


class Middle(Attention):
    """What somebody else may write: two methods, no memory of the past."""

    def prepare(self, encoded: Encoded) -> Memory:
        mask = torch.ones(encoded.values.shape[:2], dtype=torch.bool)
        return Memory(encoded.values, encoded.values, mask)

    def forward(self, query: Tensor, memory: Memory, state: Any) -> Attended:
        return Attended(memory.values[:, SOURCE // 2] * query, None, state)


def test_an_attention_of_ones_own_needs_two_methods(encoded: Encoded, queries: Tensor) -> None:
    attention = Middle(source_size=SIZE, query_size=SIZE)

    whole = attention.over_time(queries, attention.prepare(encoded), None)

    assert torch.equal(whole.context, encoded.values[:, 2:3] * queries)
    assert whole.weights is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DotAttention(4, 5), "query_size=5 and source_size=4"),
        (lambda: AdditiveAttention(0, 5), "source_size is 0, expected 1 or more"),
        (lambda: AdditiveAttention(4, 5, attention_size=0), "attention_size is 0"),
        (lambda: LocationAttention(4, 5, kernel_size=4), "kernel_size is 4, expected an odd number"),
        (lambda: LocationAttention(4, 5, filters=0), "filters is 0"),
    ],
)
def test_sizes_that_cannot_be_are_named(make: Callable[[], Attention], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", WEIGHING)
def test_axes_of_another_size_are_refused(name: str, encoded: Encoded, queries: Tensor) -> None:
    attention = build(name)
    memory = attention.prepare(encoded)

    with pytest.raises(ShapeError, match=r"encoded.values has the shape \(4, 5, 5\)"):
        attention.prepare(encoded._replace(values=encoded.values[..., 1:]))
    with pytest.raises(ShapeError, match=r"query has the shape \(4, 5\)"):
        attention(queries[:, 0, 1:], memory, attention.start(memory))
