"""Beam search against exhaustive search, greedy search and itself."""

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unrolled import AdditiveAttention, AutoregressiveDecoder, Encoded, GRUCell, Recurrent, greedy
from unrolled.generation import EnsembleDecoder, Hypotheses, beam_search
from unrolled.generation.beam import _Beam  # its bound is compared with none
from unrolled.models.decoders.base import Decoder, DecoderState
from unrolled.state import select

STOP = 0


def language_model(seed: int = 0, vocabulary: int = 4) -> AutoregressiveDecoder:
    torch.manual_seed(seed)
    decoder = AutoregressiveDecoder.of_tokens(vocabulary, 5, partial(Recurrent, GRUCell, hidden_size=6))
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=1.5)
    return decoder.double().eval()


def attentive(seed: int = 0, vocabulary: int = 4) -> AutoregressiveDecoder:
    torch.manual_seed(seed)
    core, attention = partial(Recurrent, GRUCell, hidden_size=6), partial(AdditiveAttention, attention_size=5)
    decoder = AutoregressiveDecoder.of_tokens(vocabulary, 5, core, attention, 3)
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=1.5)
    return decoder.double().eval()


def sources(batch: int) -> Encoded:
    values = torch.randn(batch, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Encoded(values, torch.tensor([4, 2, 3, 1])[:batch], values.mean(1))


def texts(found: Hypotheses, row: int) -> list[list[int]]:
    lengths = found.lengths[row].tolist()
    return [tokens[:length] for tokens, length in zip(found.tokens[row].tolist(), lengths, strict=True)]


@torch.no_grad()
def every_text(
    decoder: Decoder, state: DecoderState, memory: Any, longest: int, alpha: float = 0.0, beta: float = 0.0
) -> list[tuple[float, list[int]]]:
    """All texts of one row with their scores, the best first: an oracle without a beam."""
    scored: list[tuple[float, list[int]]] = []
    for length in range(longest + 1):
        for text in product(range(1, decoder.vocabulary_size), repeat=length):
            ended = [*text, STOP] if length < longest else list(text)
            inputs = torch.tensor([[STOP, *ended[:-1]]])
            decoded = decoder(inputs, state, memory)
            steps = decoded.parameters.log_softmax(-1)[0].gather(1, torch.tensor(ended)[:, None])
            score = float(steps.sum()) / ((5 + len(ended)) / 6) ** alpha
            if beta:
                covered = decoded.weights[0].sum(0).clamp(max=1.0)
                score += beta * float(covered[covered > 0].log().sum())
            scored.append((score, list(text)))
    return sorted(scored, key=lambda pair: -pair[0])


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_as_wide_as_the_language_finds_what_exhaustive_search_finds(seed: int, alpha: float) -> None:
    decoder = language_model(seed)
    state, memory = decoder.start(1)
    expected = every_text(decoder, state, memory, 3, alpha)

    found = beam_search(
        decoder,
        state,
        memory,
        start=torch.tensor([STOP]),
        stop=STOP,
        num_beams=64,
        n_best=8,
        max_length=3,
        length_penalty=alpha,
    )

    assert texts(found, 0) == [text for _, text in expected[:8]]
    assert found.scores[0].tolist() == pytest.approx([score for score, _ in expected[:8]])


def test_coverage_counts_as_in_the_paper_for_rows_of_several_lengths() -> None:
    decoder = attentive()
    encoded = sources(2)
    state, memory = decoder.start(2, encoded)

    found = beam_search(
        decoder,
        state,
        memory,
        start=torch.full((2,), STOP),
        stop=STOP,
        num_beams=64,
        n_best=5,
        max_length=3,
        length_penalty=0.5,
        coverage_penalty=0.8,
    )

    for row in range(2):
        one = torch.tensor([row])
        expected = every_text(decoder, select(state, one), select(memory, one), 3, 0.5, 0.8)[:5]
        assert texts(found, row) == [text for _, text in expected]
        assert found.scores[row].tolist() == pytest.approx([score for score, _ in expected])


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_stopping_early_loses_no_winner(monkeypatch: pytest.MonkeyPatch, alpha: float) -> None:
    steps: list[int] = []
    found: list[Hypotheses] = []
    for patient in (False, True):
        if patient:
            monkeypatch.setattr(_Beam, "_promising", lambda beam: beam.log_probability.isfinite().any(1))
        for seed in range(12):
            decoder = language_model(seed, vocabulary=6)
            for parameter in decoder.parameters():
                parameter.data *= 0.5  # near ties: a long text may still win
            taken = iter(range(10**6))
            step = decoder.step
            monkeypatch.setattr(decoder, "step", lambda *given, step=step, taken=taken: (next(taken), step(*given))[1])
            state, memory = decoder.start(3)
            start = torch.tensor([0, 1, 2])
            options: dict[str, Any] = {"num_beams": 3, "n_best": 2, "max_length": 12, "length_penalty": alpha}
            found.append(beam_search(decoder, state, memory, start=start, stop=STOP, **options))
            steps.append(next(taken))

    for early, late in zip(found[:12], found[12:], strict=True):
        assert early.lengths.tolist() == late.lengths.tolist()
        torch.testing.assert_close(early.scores, late.scores)
    saved = sum(steps[12:]) - sum(steps[:12])
    assert saved > 0 if alpha <= 1 else saved >= 0  # a strong penalty leaves long texts a chance to the end


@pytest.mark.parametrize("seed", range(6))
def test_a_width_of_one_is_greedy(seed: int) -> None:
    decoder = attentive(seed, vocabulary=6)
    state, memory = decoder.start(4, sources(4))
    start = torch.full((4,), STOP)

    found = beam_search(decoder, state, memory, start=start, stop=STOP, num_beams=1, max_length=7, length_penalty=1.0)

    expected = greedy(decoder, state, memory, start=start, stop=STOP, max_length=7)
    assert found.lengths[:, 0].tolist() == expected.lengths.tolist()
    assert [texts(found, row)[0] for row in range(4)] == [
        tokens[:length] for tokens, length in zip(expected.values.tolist(), expected.lengths.tolist(), strict=True)
    ]
    torch.testing.assert_close(found.log_probability[:, 0], expected.log_probability)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    seed=st.integers(0, 100),
    num_beams=st.sampled_from([2, 4, 6]),
    num_beam_groups=st.sampled_from([1, 2]),
    alpha=st.sampled_from([0.0, 1.0]),
    no_repeat_ngram_size=st.integers(0, 2),
)
def test_a_batch_is_its_rows_one_by_one(
    seed: int, num_beams: int, num_beam_groups: int, alpha: float, no_repeat_ngram_size: int
) -> None:
    decoder = attentive(seed, vocabulary=5)
    state, memory = decoder.start(4, sources(4))
    most, least = torch.tensor([5, 0, 3, 6]), torch.tensor([0, 0, 2, 1])

    def search(rows: Tensor) -> Hypotheses:
        return beam_search(
            decoder,
            select(state, rows),
            select(memory, rows),
            start=torch.full((len(rows),), STOP),
            stop=STOP,
            num_beams=num_beams,
            n_best=2,
            max_length=most[rows],
            min_length=least[rows],
            length_penalty=alpha,
            num_beam_groups=num_beam_groups,
            diversity_penalty=0.5,
            no_repeat_ngram_size=no_repeat_ngram_size,
            forbidden=[1],
        )

    together = search(torch.arange(4))

    for row in range(4):
        alone = search(torch.tensor([row]))
        assert texts(together, row) == texts(alone, 0)
        torch.testing.assert_close(together.scores[row], alone.scores[0])
        for text in texts(together, row)[:1]:
            assert int(least[row]) <= len(text) <= int(most[row])
            assert 1 not in text
            grams = (
                [tuple(text[at : at + no_repeat_ngram_size]) for at in range(len(text) - no_repeat_ngram_size + 1)]
                if no_repeat_ngram_size
                else []
            )
            assert len(grams) == len(set(grams))


def test_hypotheses_are_ordered_and_distinct_and_keep_what_they_attended_to() -> None:
    decoder = attentive(3, vocabulary=6)
    state, memory = decoder.start(3, sources(3))

    found = beam_search(
        decoder,
        state,
        memory,
        start=torch.full((3,), STOP),
        stop=STOP,
        num_beams=6,
        n_best=6,
        max_length=5,
        length_penalty=1.0,
        num_beam_groups=3,
        diversity_penalty=1.0,
    )

    assert found.weights is not None
    for row in range(3):
        scores = [score for score in found.scores[row].tolist() if score > -float("inf")]
        assert scores == sorted(scores, reverse=True)
        kept = texts(found, row)[: len(scores)]
        assert len({tuple(text) for text in kept}) == len(kept) > 1
        for place, text in enumerate(kept):
            one = torch.tensor([row])
            decoded = decoder(torch.tensor([[STOP, *text]]), select(state, one), select(memory, one))
            steps = min(len(text) + 1, 5)
            torch.testing.assert_close(found.weights[row, place, :steps], decoded.weights[0, :steps])


def test_groups_write_different_first_words() -> None:
    decoder = language_model(2, vocabulary=8)
    state, memory = decoder.start(1)
    options: dict[str, Any] = {"start": torch.tensor([STOP]), "stop": STOP, "num_beams": 4, "n_best": 4}

    found = beam_search(
        decoder, state, memory, **options, max_length=1, min_length=1, num_beam_groups=4, diversity_penalty=100.0
    )

    assert len({text[0] for text in texts(found, 0)}) == 4


def test_an_ensemble_of_equals_is_one_and_of_two_is_their_mean() -> None:
    one, other = language_model(0), language_model(1)
    tokens = torch.tensor([[0, 2, 1, 3]])

    def probabilities(decoder: Decoder) -> Tensor:
        state, memory = decoder.start(1)
        whole = decoder(tokens, state, memory).parameters.softmax(-1)
        for step in range(4):
            decoded = decoder.step(tokens[:, step], state, memory)
            state = decoded.state
            torch.testing.assert_close(decoded.parameters.softmax(-1), whole[:, step])
        return whole.float()

    torch.testing.assert_close(probabilities(EnsembleDecoder([one, one])), probabilities(one))
    mean = (probabilities(one) + probabilities(other)) / 2
    torch.testing.assert_close(probabilities(EnsembleDecoder([one, other])), mean)
    product_of_both = (probabilities(one) * probabilities(other)).sqrt()
    geometric = probabilities(EnsembleDecoder([one, other], geometric=True))
    torch.testing.assert_close(geometric, product_of_both / product_of_both.sum(-1, keepdim=True))
    with pytest.raises(ValueError, match="one vocabulary"):
        EnsembleDecoder([one, language_model(0, vocabulary=5)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams=0"),
        ({"n_best": 9}, "n_best=9"),
        ({"num_beams": 4, "num_beam_groups": 3}, "num_beam_groups=3"),
        ({"length_penalty": -1.0}, "length_penalty=-1.0"),
        ({"max_length": -1}, "max_length=-1"),
        ({"min_length": 9}, "min_length is above max_length"),
        ({"coverage_penalty": 1.0}, "needs attention"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    decoder = language_model()
    state, memory = decoder.start(1)
    with pytest.raises(ValueError, match=message):
        beam_search(
            decoder,
            state,
            memory,
            start=torch.tensor([STOP]),
            stop=STOP,
            **{"max_length": 4, "num_beams": 4, **options},
        )
