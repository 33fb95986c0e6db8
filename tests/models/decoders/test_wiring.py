"""Decoders that look in another order: the equations of their papers, and the laws of every decoder."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import (
    AdditiveAttention,
    AttentionWiring,
    AutoregressiveDecoder,
    BahdanauWiring,
    ElmanCell,
    Encoded,
    GRUCell,
    LSTMCell,
    MultiplicativeAttention,
    Recurrent,
    SummaryAttention,
    TopDownWiring,
)
from unrolled.state import leaves, select

VOCABULARY, SOURCE = 11, 6
ORDERS: dict[str, Callable[..., AttentionWiring]] = {
    "before": BahdanauWiring,
    "ungated": partial(BahdanauWiring, gated=False),
    "between": TopDownWiring,
}


def make(order: str, cell: Any = LSTMCell, layers: int = 2, attention: Any = None, **options: Any) -> Any:
    torch.manual_seed(0)
    core = partial(Recurrent, cell, hidden_size=7, num_layers=layers, dropout=0.2 if options else 0.0)
    attention = attention or partial(AdditiveAttention, attention_size=5)
    return (
        AutoregressiveDecoder.of_tokens(VOCABULARY, 4, core, attention, SOURCE, wiring=ORDERS[order], **options)
        .double()
        .eval()
    )


@pytest.fixture
def encoded(generator: torch.Generator) -> Encoded:
    values = torch.randn(3, 4, SOURCE, dtype=torch.float64, generator=generator)
    return Encoded(values, torch.tensor([4, 2, 4]), values.mean(1))


@pytest.fixture
def tokens(generator: torch.Generator) -> Tensor:
    return torch.randint(VOCABULARY, (3, 5), generator=generator)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("cell", [ElmanCell, GRUCell, LSTMCell])
def test_steps_are_one_pass(order: str, cell: Any, encoded: Encoded, tokens: Tensor) -> None:
    decoder = make(order, cell)
    state, memory = decoder.start(3, encoded)

    whole = decoder(tokens, state, memory)
    logits, weights = [], []
    for token in tokens.unbind(1):
        decoded = decoder.step(token, state, memory)
        state = decoded.state
        logits.append(decoded.parameters)
        weights.append(decoded.weights)

    torch.testing.assert_close(torch.stack(logits, 1), whole.parameters, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.stack(weights, 1), whole.weights, rtol=0, atol=1e-12)
    for one, other in zip(leaves(state), leaves(whole.state), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_with_its_noise_a_step_of_training_is_the_pass(order: str, encoded: Encoded, tokens: Tensor) -> None:
    decoder = make(order, input_dropout=0.3, output_dropout=0.3).train()
    state, memory = decoder.start(3, encoded)
    torch.manual_seed(5)
    whole = decoder(tokens, state, memory).parameters
    torch.manual_seed(5)
    noise = decoder.noise(3, 5)
    logits = []
    for time, token in enumerate(tokens.unbind(1)):
        decoded = decoder.step(token, state, memory, noise=noise.at(time))
        state = decoded.state
        logits.append(decoded.parameters)

    torch.testing.assert_close(torch.stack(logits, 1), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_later_tokens_and_padding_never_matter(order: str, encoded: Encoded, tokens: Tensor) -> None:
    decoder = make(order)
    state, memory = decoder.start(3, encoded)
    lengths = torch.tensor([5, 2, 3])
    changed = tokens.clone()
    changed[1, 2:] = (changed[1, 2:] + 1) % VOCABULARY
    spoilt = encoded._replace(values=encoded.values.clone())
    spoilt.values[1, 2:] = float("nan")
    other, remembered = decoder.start(3, spoilt)

    one = decoder(tokens, state, memory, lengths)
    two = decoder(changed, other, remembered, lengths)

    torch.testing.assert_close(one.parameters[1, :2], two.parameters[1, :2], rtol=0, atol=0)
    assert not torch.equal(one.parameters[1, 2:], two.parameters[1, 2:])
    assert (one.weights[1, 2:] == 0).all()
    for left, right in zip(leaves(one.state), leaves(two.state), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)


@pytest.mark.parametrize("order", ORDERS)
def test_selecting_rows_commutes_with_a_step(order: str, encoded: Encoded, tokens: Tensor) -> None:
    decoder = make(order)
    state, memory = decoder.start(3, encoded)
    rows = torch.tensor([2, 0, 0, 1])

    after = select(decoder.step(tokens[:, 0], state, memory).state, rows)
    before = decoder.step(tokens[rows, 0], select(state, rows), select(memory, rows)).state

    for one, other in zip(leaves(after), leaves(before), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


def test_looking_before_is_show_attend_and_tell(encoded: Encoded, tokens: Tensor) -> None:
    decoder = make("before", layers=1)
    state, memory = decoder.start(3, encoded)
    query = torch.tanh(decoder.steps.wiring.query(encoded.summary))
    core = state.core
    for time in range(2):
        context, weights, _ = decoder.attention(query, memory, None)
        seen = torch.sigmoid(query @ decoder.steps.wiring.gate.weight.t() + decoder.steps.wiring.gate.bias) * context
        query, core = decoder.core.step(torch.cat([decoder.embedding(tokens[:, time]), seen], -1), core)
        expected = decoder.head.linear(torch.tanh(decoder.steps.readout(torch.cat([query, seen], -1))))
        decoded = decoder.step(tokens[:, time], state, memory)
        state = decoded.state

        torch.testing.assert_close(decoded.parameters, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(decoded.weights, weights, rtol=0, atol=1e-12)


def test_looking_between_is_bottom_up_and_top_down(encoded: Encoded, tokens: Tensor) -> None:
    decoder = make("between", GRUCell, layers=1)
    state, memory = decoder.start(3, encoded)
    written = torch.zeros(3, 7, dtype=torch.float64)
    first, second = state.core
    for time in range(2):
        word = decoder.embedding(tokens[:, time])
        asking, first = decoder.core.step(torch.cat([word, written, encoded.summary], -1), first)
        context, _, _ = decoder.attention(asking, memory, None)
        written, second = decoder.steps.wiring.language.step(torch.cat([context, asking], -1), second)
        expected = decoder.head.linear(torch.tanh(decoder.steps.readout(torch.cat([written, context], -1))))
        decoded = decoder.step(tokens[:, time], state, memory)
        state = decoded.state

        torch.testing.assert_close(decoded.parameters, expected, rtol=0, atol=1e-12)


def test_orders_go_with_any_attention(encoded: Encoded, tokens: Tensor) -> None:
    for attention in (MultiplicativeAttention, partial(AdditiveAttention, coverage=True), SummaryAttention):
        decoder = make("before", attention=attention)
        state, memory = decoder.start(3, encoded)
        assert decoder(tokens, state, memory).parameters.isfinite().all()


def test_another_order_feeds_anyway() -> None:
    with pytest.raises(ValueError, match="input_feeding=False supports only the wiring LuongWiring"):
        make("before", input_feeding=False)


def test_show_and_tell_reads_the_image_like_a_word(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    core = partial(Recurrent, LSTMCell, hidden_size=5)
    decoder = AutoregressiveDecoder.of_tokens(9, 4, core, source_size=6, source_as="input").double().eval()
    summary = torch.randn(2, 6, dtype=torch.float64, generator=generator)
    tokens = torch.randint(9, (2, 3), generator=generator)

    state, memory = decoder.start(2, Encoded(summary.unsqueeze(1), None, summary))
    found = decoder(tokens, state, memory).parameters

    inputs = torch.cat([decoder.first(summary).unsqueeze(1), decoder.embedding(tokens)], 1)
    expected = decoder.head.linear(decoder.core(inputs)[0])[:, 1:]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="source_as is 'word'"):
        AutoregressiveDecoder.of_tokens(9, 4, core, source_size=6, source_as="word")
