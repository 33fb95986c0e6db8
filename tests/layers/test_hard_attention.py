"""Hard attention against its expectation written out over all choices, and against the laws of attention."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    AutoregressiveDecoder,
    Encoded,
    HardAttention,
    HardAttentionSample,
    LSTMCell,
    Recurrent,
    hard_attention_loss,
)
from unrolled.models.decoders.base import Decoded, DecoderState
from unrolled.training.tasks.reinforcement import Reinforcement

BATCH, SOURCE, TIME, SIZE = 3, 4, 2, 5
LENGTHS = torch.tensor([4, 2, 0])


def build(soft: float = 0.0) -> HardAttention:
    torch.manual_seed(0)
    attention = HardAttention(SIZE, SIZE, attention_size=6, soft=soft).double()
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    return attention


@pytest.fixture
def encoded(generator: torch.Generator) -> Encoded:
    values = torch.randn(BATCH, SOURCE, SIZE, dtype=torch.float64, generator=generator)
    return Encoded(values, LENGTHS, values.mean(1), None)


@pytest.fixture
def queries(generator: torch.Generator) -> Tensor:
    return torch.randn(BATCH, TIME, SIZE, dtype=torch.float64, generator=generator)


def test_in_evaluation_the_likeliest_place_is_the_context(encoded: Encoded, queries: Tensor) -> None:
    attention = build().eval()
    memory = attention.prepare(encoded)

    context, weights, _ = attention(queries[:, 0], memory, attention.start(memory))

    assert weights is not None
    torch.testing.assert_close(weights.sum(1), torch.tensor([1.0, 1.0, 0.0]).double())
    for row in (0, 1):
        assert torch.equal(context[row], encoded.values[row, weights[row].argmax()])
    assert torch.equal(context[2], torch.zeros(SIZE).double())  # there is nothing to look at


def test_places_are_drawn_as_often_as_they_weigh(encoded: Encoded, queries: Tensor) -> None:
    attention = build().train()
    many = Encoded(encoded.values[:1].expand(4000, -1, -1), None, encoded.summary[:1].expand(4000, -1))
    memory = attention.prepare(many)

    context, weights, _ = attention(queries[:1, 0].expand(4000, -1), memory, attention.start(memory))

    assert weights is not None
    drawn = (context.unsqueeze(1) == many.values).all(-1)  # (4000, source)
    assert torch.equal(drawn.sum(1), torch.ones(4000, dtype=torch.long))  # always one of them
    error = (weights[0] * (1 - weights[0]) / 4000).sqrt()
    assert ((drawn.double().mean(0) - weights[0]).abs() < 4 * error + 1e-9).all()


def test_soft_steps_take_the_mean_and_choose_nothing(encoded: Encoded, queries: Tensor) -> None:
    attention = build(soft=1.0).train()
    memory = attention.prepare(encoded)

    context, weights, choices = attention(queries[:, 0], memory, attention.start(memory))

    assert weights is not None
    torch.testing.assert_close(context, (weights.unsqueeze(1) @ memory.values).squeeze(1))
    assert torch.equal(choices.log_probability, torch.zeros(BATCH).double())


def test_choices_carry_log_probability_and_entropy_over_the_steps(encoded: Encoded, queries: Tensor) -> None:
    attention = build().train()
    memory = attention.prepare(encoded)

    found = attention.over_time(queries, memory, attention.start(memory), torch.tensor([2, 1, 2]))

    assert found.weights is not None
    for row, steps in ((0, 2), (1, 1)):
        weights = found.weights[row, :steps, : LENGTHS[row]]
        chosen = (found.context[row, :steps].unsqueeze(1) == encoded.values[row]).all(-1).int().argmax(1)
        expected = weights[range(steps), chosen].log().sum()
        torch.testing.assert_close(found.state.log_probability[row], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.state.entropy[row], -(weights * weights.log()).sum(), rtol=0, atol=1e-12)
    assert found.state.log_probability[2] == 0 == found.state.entropy[2]


def test_the_mean_gradient_over_all_choices_is_that_of_the_expected_reward(
    encoded: Encoded, queries: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly: Σ_s p(s) ∇(r(s) + (r(s) − b) log p(s)) = ∇ Σ_s p(s) r(s), whatever b is."""
    attention = build().train()
    row = Encoded(encoded.values[:1], None, encoded.summary[:1])
    worth = torch.linspace(-1, 2, SIZE).double()
    parameters = list(attention.parameters())

    def reward(contexts: Tensor) -> Tensor:
        return torch.tanh(contexts @ worth).prod(1)  # (1,); no sum over the steps: choices act together

    memory = attention.prepare(row)
    expected = torch.zeros(()).double()
    _, weights, _ = attention.over_time(queries[:1], memory, attention.start(memory))
    assert weights is not None
    for places in product(range(SOURCE), repeat=TIME):
        probability = torch.stack([weights[0, step, place] for step, place in enumerate(places)]).prod()
        expected = expected + probability * reward(row.values[:, list(places)])[0]
    exact = torch.autograd.grad(expected, parameters, allow_unused=True)

    total = [torch.zeros_like(parameter) for parameter in parameters]
    for places in product(range(SOURCE), repeat=TIME):
        turns = iter([torch.tensor([[place]]) for place in places])
        monkeypatch.setattr(torch.Tensor, "multinomial", staticmethod(partial(_turn, turns)))
        memory = attention.prepare(row)
        contexts, _, choices = attention.over_time(queries[:1], memory, attention.start(memory))
        loss = hard_attention_loss(reward(contexts), 0.7, choices).total - reward(contexts).sum()
        gradients = torch.autograd.grad(-loss, parameters, allow_unused=True)
        for mean, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                mean += choices.log_probability[0].exp().detach() * gradient

    for mean, gradient in zip(total, exact, strict=True):
        torch.testing.assert_close(mean, torch.zeros_like(mean) if gradient is None else gradient, rtol=0, atol=1e-12)


def test_entropy_is_wanted() -> None:
    choices = HardAttentionSample(torch.tensor([-1.0, -2.0]), torch.tensor([0.5, 0.25], requires_grad=True))

    loss = hard_attention_loss(torch.tensor([3.0, 4.0]), 1.0, choices, weight=2.0, entropy=0.1)

    assert float(loss.total) == pytest.approx(2.0 * (2.0 * 1.0 + 3.0 * 2.0) - 0.1 * 0.75)
    assert int(loss.count) == 2


def test_rewards_are_compared_with_those_so_far() -> None:
    reinforcement = Reinforcement(weight=1.0, entropy=0.0, decay=0.75)
    mask = torch.tensor([[True, True], [True, False]])
    targets = torch.tensor([[0, 1], [1, 0]])

    def step(certainty: float) -> tuple[float, Tensor]:
        logits = torch.full((2, 2, 3), 0.0)
        logits[0, 0, 0] = certainty
        rewards = torch.zeros(2)
        said = logits.log_softmax(-1)
        rewards[0], rewards[1] = said[0, 0, 0] + said[0, 1, 1], said[1, 0, 1]
        state = DecoderState(None, HardAttentionSample(torch.tensor([-1.0, -3.0]), torch.zeros(2)))
        return float(reinforcement(Decoded(logits, None, state), targets, mask)), rewards

    first, of_first = step(1.0)
    second, of_second = step(2.0)

    def expected(rewards: Tensor, baseline: float) -> float:
        return float(((rewards - baseline) * torch.tensor([1.0, 3.0])).sum())

    begun = float(of_first.mean())
    assert first == pytest.approx(expected(of_first, begun), abs=1e-6)
    assert second == pytest.approx(expected(of_second, begun), abs=1e-6)
    assert float(reinforcement.baseline) == pytest.approx(0.75 * begun + 0.25 * float(of_second.mean()), abs=1e-6)


def test_a_decoder_learns_where_to_look_from_the_words_alone() -> None:
    """One place of four holds the word; where it is shows in another feature, which a context doesn't tell apart."""
    torch.manual_seed(0)
    words = 3
    core = partial(Recurrent, LSTMCell, hidden_size=8, num_layers=1)
    attention: Any = partial(HardAttention, attention_size=8, soft=0.0)
    decoder = AutoregressiveDecoder.of_tokens(words, 6, core, attention, source_size=words + 1)
    reinforcement = Reinforcement()
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.02)

    def batch(count: int) -> tuple[Encoded, Tensor, Tensor]:
        place, word = torch.randint(4, (count,)), torch.randint(words, (count, 4))
        values = torch.cat([nn.functional.one_hot(word, words), torch.zeros(count, 4, 1)], -1)
        values[range(count), place, -1] = 1.0
        return Encoded(values, None, torch.zeros(count, words + 1)), word[range(count), place].unsqueeze(1), place

    for _ in range(250):
        encoded, target, _ = batch(64)
        decoded = decoder(torch.zeros_like(target), *decoder.start(64, encoded))
        loss = nn.functional.cross_entropy(decoded.parameters.flatten(0, 1), target.flatten(), reduction="sum")
        loss = loss + reinforcement(decoded, target, torch.ones_like(target, dtype=torch.bool))
        optimizer.zero_grad()
        (loss / 64).backward()
        optimizer.step()

    encoded, target, place = batch(500)
    decoded = decoder.eval()(torch.zeros_like(target), *decoder.start(500, encoded))
    assert decoded.weights is not None
    assert (decoded.weights[:, 0].argmax(-1) == place).double().mean() > 0.95
    assert (decoded.parameters[:, 0].argmax(-1) == target[:, 0]).double().mean() > 0.95


def _turn(turns: Iterator[Tensor], *_: Any) -> Tensor:
    return next(turns)


@pytest.mark.parametrize("soft", [-0.1, 1.1])
def test_impossible_probabilities_are_refused(soft: float) -> None:
    with pytest.raises(ValueError, match=rf"soft is {soft}, expected a probability in \[0, 1\]"):
        HardAttention(4, 4, soft=soft)
    with pytest.raises(ValueError, match="decay"):
        Reinforcement(decay=1.0)
