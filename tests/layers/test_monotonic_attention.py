"""Hard monotonic attention beside the sum over all alignments, written out, and the laws of a distribution."""

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    AutoregressiveDecoder,
    Encoded,
    FrameEmbedding,
    HardMonotonicAttention,
    LSTMCell,
    NumbersHead,
    Recurrent,
    TokenEmbedding,
)
from unrolled.generation.beam import beam_search
from unrolled.models.decoders.base import DecoderState

BATCH, SOURCE, TIME, SIZE, CLASSES = 4, 4, 3, 5, 3
LENGTHS = torch.tensor([4, 2, 1, 0])


@pytest.fixture
def encoded(generator: torch.Generator) -> Encoded:
    values = torch.randn(BATCH, SOURCE, SIZE, dtype=torch.float64, generator=generator)
    return Encoded(values, LENGTHS, values.mean(1), None)


def make(cell: Any = LSTMCell, attention: Any = HardMonotonicAttention, **options: Any) -> Any:
    torch.manual_seed(0)
    stack = partial(Recurrent, cell, hidden_size=6, num_layers=1)
    decoder = AutoregressiveDecoder.of_tokens(CLASSES, 5, stack, attention, SIZE, **options).double().eval()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter)
    return decoder


def written_out(scores: Tensor, emissions: Tensor, targets: list[int]) -> Tensor:
    """Σ over all monotonic alignments of Π p(a_t | a_{t-1}) p(y_t | a_t), for one row.

    Args:
        scores: (time, source) of the valid source.
        emissions: (time, source, classes) probabilities.
        targets: the tokens.
    """
    total = scores.new_zeros(())
    for path in product(range(scores.shape[1]), repeat=len(targets)):
        probability, before = scores.new_ones(()), 0
        for time, (place, target) in enumerate(zip(path, targets, strict=True)):
            onward = scores[time, before:].exp()
            step = scores[time, place].exp() / onward.sum() if place >= before else scores.new_zeros(())
            probability = probability * step * emissions[time, place, target]
            before = place
        total = total + probability
    return total


def parts(decoder: Any, encoded: Encoded, tokens: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """Scores and emissions of a row from the decoder's own layers, position by position."""
    state, memory = decoder.start(BATCH, encoded)
    queries, _ = decoder.core(decoder.embedding(tokens), state.core)
    length = max(int(LENGTHS[row]), 1)
    values = memory.values[row, :length]
    scores = queries[row] @ decoder.attention.key(values).T
    features = [[torch.cat([query, value]) for value in values] for query in queries[row]]
    readouts = torch.stack([torch.stack([torch.tanh(decoder.steps.readout(x)) for x in line]) for line in features])
    return scores, decoder.head(readouts).softmax(-1)


def test_every_text_has_the_probability_of_all_its_alignments_together(encoded: Encoded) -> None:
    decoder = make()
    sums = torch.zeros(BATCH, dtype=torch.float64)
    for text in product(range(CLASSES), repeat=TIME):
        tokens = torch.tensor([[0, *text[:-1]]]).expand(BATCH, -1)
        targets = torch.tensor([text]).expand(BATCH, -1)

        logs = decoder(tokens, *decoder.start(BATCH, encoded)).parameters

        found = logs.gather(-1, targets.unsqueeze(-1)).squeeze(-1).sum(1).exp()
        expected = [written_out(*parts(decoder, encoded, tokens, row), list(text)) for row in range(BATCH)]
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-10, atol=1e-14)
        sums += torch.stack(expected)
    torch.testing.assert_close(sums, torch.ones(BATCH).double())  # all texts of a length


def test_the_weights_are_the_chances_of_each_place_before_the_token_is_known(encoded: Encoded) -> None:
    decoder = make()
    tokens = torch.tensor([[0, 2, 1]]).expand(BATCH, -1)

    weights = decoder(tokens, *decoder.start(BATCH, encoded)).weights

    for row in range(BATCH - 1):
        scores, emissions = parts(decoder, encoded, tokens, row)
        expected = torch.zeros(int(LENGTHS[row]), dtype=torch.float64)
        for path in product(range(len(expected)), repeat=2):  # the second step, after the first token was 2
            first, second = path
            if second >= first:
                chance = scores[0].softmax(0)[first] * emissions[0, first, 2]
                expected[second] += chance * scores[1, first:].softmax(0)[second - first]
        expected = expected / expected.sum()
        torch.testing.assert_close(weights[row, 1, : len(expected)], expected)
        assert not weights[row, :, len(expected) :].any()
    assert not weights[-1].any()  # there is nothing to look at


def test_gradients_are_those_of_the_sum(encoded: Encoded) -> None:
    decoder = make()
    tokens, targets = torch.tensor([[0, 2, 1]]).expand(BATCH, -1), torch.tensor([[2, 1, 0]]).expand(BATCH, -1)
    decoder.head.train()

    loss = decoder.head.loss(decoder(tokens, *decoder.start(BATCH, encoded)).parameters, targets).total

    expected = -sum(
        written_out(*parts(decoder, encoded, tokens, row), targets[row].tolist()).log() for row in range(BATCH)
    )
    torch.testing.assert_close(loss, expected)
    parameters = list(decoder.parameters())
    for found, right in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(found, right, rtol=1e-8, atol=1e-10)


def test_every_cell_steps_as_it_passes(make_cell: Any, encoded: Encoded) -> None:
    decoder = make(make_cell)
    tokens = torch.tensor([[0, 2, 1]]).expand(BATCH, -1)
    state, memory = decoder.start(BATCH, encoded)

    whole = decoder(tokens, state, memory)
    for time, token in enumerate(tokens.unbind(1)):
        decoded = decoder.step(token, state, memory)
        state = decoded.state
        torch.testing.assert_close(decoded.parameters, whole.parameters[:, time])
    whole.parameters.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in decoder.parameters())


def test_a_wide_beam_finds_the_likeliest_text(encoded: Encoded) -> None:
    decoder = make()
    texts = [text for length in range(TIME + 1) for text in product((1, 2), repeat=length)]

    def log_probability(text: tuple[int, ...], row: int) -> float:
        targets = [*text, 0][:TIME]
        tokens = torch.tensor([[0, *targets[:-1]]]).expand(BATCH, -1)
        logs = decoder(tokens, *decoder.start(BATCH, encoded)).parameters[row]
        return float(logs.detach().gather(-1, torch.tensor(targets).unsqueeze(-1)).sum())

    start = torch.zeros(BATCH, dtype=torch.int64)
    found = beam_search(
        decoder, *decoder.start(BATCH, encoded), start=start, stop=0, num_beams=27, max_length=TIME, n_best=3
    )

    for row in range(BATCH):
        ranked = sorted(((log_probability(text, row), text) for text in texts), reverse=True)[:3]
        lengths = found.lengths[row].tolist()
        assert [tuple(found.tokens[row, n, :length].tolist()) for n, length in enumerate(lengths)] == [
            text for _, text in ranked
        ]
        torch.testing.assert_close(
            found.log_probability[row].double(), torch.tensor([log for log, _ in ranked]).double(), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_large_scores_give_neither_nan_nor_infinite_gradients(size: float, generator: torch.Generator) -> None:
    attention = HardMonotonicAttention(SIZE, SIZE)
    attention.num_classes = CLASSES
    values = torch.randn(BATCH, SOURCE, SIZE, generator=generator)
    memory = attention.prepare(Encoded(values, LENGTHS, values.mean(1), None))
    queries = (size * torch.randn(BATCH, 6, SIZE, generator=generator)).requires_grad_()
    logits = (size * torch.randn(BATCH, 6, SOURCE, CLASSES, generator=generator)).requires_grad_()
    tokens = torch.randint(CLASSES, (BATCH, 6), generator=generator)

    found = attention.marginalize(queries, logits, tokens, memory, attention.start(memory))
    found.log_probabilities.sum().backward()

    assert found.log_probabilities.isfinite().all()
    torch.testing.assert_close(found.log_probabilities.exp().sum(-1), torch.ones(BATCH, 6))
    torch.testing.assert_close(found.weights.sum(-1)[:3], torch.ones(3, 6))
    assert queries.grad is not None
    assert logits.grad is not None
    assert queries.grad.isfinite().all()
    assert logits.grad.isfinite().all()


def test_a_batch_without_any_source_is_written_about_too() -> None:
    decoder = make()
    nothing = Encoded(torch.zeros(2, 0, SIZE).double(), None, torch.zeros(2, SIZE).double(), None)

    decoded = decoder(torch.zeros(2, 3, dtype=torch.int64), *decoder.start(2, nothing))

    assert decoded.parameters.isfinite().all()
    assert not decoded.weights.any()


def test_what_does_not_fit_is_refused(encoded: Encoded) -> None:
    with pytest.raises(ValueError, match="leave out input_feeding=True"):
        make(input_feeding=True)
    with pytest.raises(ValueError, match="copy=True needs soft attention"):
        make(copy=True)
    stack = partial(Recurrent, LSTMCell, hidden_size=6)
    head = partial(NumbersHead, num_outputs=2)
    options: dict[str, Any] = {"attention": HardMonotonicAttention, "source_size": SIZE}
    with pytest.raises(ValueError, match="needs a TokenEmbedding and a CategoricalHead, got a FrameEmbedding"):
        AutoregressiveDecoder(FrameEmbedding(2), stack, head, **options)
    decoder = make()
    with pytest.raises(ValueError, match="use one vocabulary for both"):
        AutoregressiveDecoder(TokenEmbedding(9, 5), stack, partial(type(decoder.head), num_classes=3), **options)
    state, memory = decoder.start(BATCH, encoded)
    with pytest.raises(ValueError, match=r"state\.attention"):
        decoder.step(torch.zeros(BATCH, dtype=torch.int64), DecoderState(state.core), memory)
    with pytest.raises(ValueError, match="call marginalize"):
        decoder.attention(torch.zeros(BATCH, 6).double(), memory, state.attention)
