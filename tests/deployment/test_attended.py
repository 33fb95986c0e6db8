"""Text with what the network did for it: the odds of each symbol, and the attention of each token."""

import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from unrolled import (
    AdditiveAttention,
    AutoregressiveDecoder,
    ByteTokenizer,
    CharacterTokenizer,
    EncoderDecoder,
    ImageEncoder,
    ImageTransform,
    LSTMCell,
    Processor,
    Recurrent,
    RecurrentEncoder,
    SmallTrunk,
    SpacedTokenizer,
    Tokenizer,
    WordTokenizer,
    beam_search,
    ctc_beam_search,
    sample,
)
from unrolled.checkpoint import Bundle
from unrolled.deployment import Search, caption, caption_attended, sample_text, stream_text, translate_attended
from unrolled.deployment.translation import alternatives
from unrolled.generation.limits import TimeLimitError, time_limit
from unrolled.generation.sampling import token_probabilities

TEXT = "one two three. four five!"
LETTERS = CharacterTokenizer.fit([TEXT])
CORE = partial(Recurrent, LSTMCell, hidden_size=6, num_layers=2)


def language_model(tokenizer: Tokenizer = LETTERS) -> Bundle:
    torch.manual_seed(0)
    return Bundle(AutoregressiveDecoder.of_tokens(tokenizer.size, 5, CORE).eval(), Processor(tokenizer), {})


def translator(**options: Any) -> Bundle:
    torch.manual_seed(0)
    encoder = RecurrentEncoder.of_tokens(LETTERS.size, 5, CORE)
    decoder = partial(AutoregressiveDecoder.of_tokens, LETTERS.size, 5, CORE, **options)
    return Bundle(EncoderDecoder(encoder, decoder).eval(), Processor(LETTERS, LETTERS), {})


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


TOKENIZERS: list[Callable[[], Tokenizer]] = [
    lambda: LETTERS,
    lambda: WordTokenizer.fit([TEXT]),
    lambda: SpacedTokenizer.fit([TEXT]),
    ByteTokenizer,
]


@pytest.mark.parametrize("make", TOKENIZERS)
@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.5, "temperature": 1.5}])
def test_the_stream_is_the_text_that_is_sampled(make: Callable[[], Tokenizer], options: dict[str, Any]) -> None:
    made = language_model(make())
    expected = sample_text(made, "one two", length=20, generator=seeded(), **options)
    for recorded in (False, True):
        symbols = list(stream_text(made, "one two", length=20, generator=seeded(), recorded=recorded, **options))
        written = "".join(symbol.text for symbol in symbols)
        assert expected.removeprefix(written) in ("", "\ufffd")  # the last bytes may be a part of a character
        given = len(made.processor.source.encode("one two"))
        assert [symbol.given for symbol in symbols] == [True] * (given + 1) + [False] * 20


def test_odds_are_the_softmax_of_the_logits_and_add_up_to_what_was_drawn() -> None:
    made = language_model()
    symbols = list(stream_text(made, "two", length=5, temperature=0.5, num_odds=99, generator=seeded()))
    ids = [LETTERS.start, *LETTERS.encode("".join(symbol.text for symbol in symbols))]
    with torch.no_grad():
        logits = made.network(torch.tensor([ids])).parameters[0] / 0.5
    logits[:, [LETTERS.start, LETTERS.unknown]] = -torch.inf
    expected = logits.softmax(-1)
    for place, symbol in enumerate(symbols):
        odds = dict(symbol.odds)
        assert list(odds.values()) == sorted(odds.values(), reverse=True)
        assert {LETTERS.encode(name)[0]: chance for name, chance in odds.items()} == pytest.approx(
            {index: float(expected[place, index]) for index in range(LETTERS.size) if expected[place, index] > 0},
            abs=1e-6,
        )
        if place:
            assert symbol.probability == pytest.approx(float(expected[place - 1, ids[place]]), abs=1e-6)


def test_a_recorded_stream_has_the_gates_of_each_step() -> None:
    made = language_model()
    network: Any = made.network
    symbols = list(stream_text(made, "two", length=3, recorded=True, generator=seeded()))
    cell = network.steps.cells[0]
    state: Any = None
    for symbol in symbols:
        read = LETTERS.encode(symbol.text) or [LETTERS.start]
        with torch.no_grad():
            embedded = network.embedding(torch.tensor([read]))[:, 0]
            state = cell.initial_state(1, like=embedded) if state is None else state
            rows = cell.project(embedded[:, None])[:, 0] + state.h @ cell.weight_hh.T + cell.bias_hh
            expected = rows.chunk(4, -1)[1].sigmoid()
            _, state = cell.step(cell.project(embedded[:, None])[:, 0], state)
        assert symbol.recording is not None
        torch.testing.assert_close(symbol.recording["steps.cells.0"]["f"][:, 0], expected)
    assert not any("observer" in vars(module) for module in network.modules())


def test_a_character_of_several_bytes_is_shown_when_it_is_complete() -> None:
    shown = [symbol.text for symbol in stream_text(language_model(ByteTokenizer()), "aé€b", length=0)]
    assert shown == ["", "a", "", "é", "", "", "€", "b"]


def test_a_stream_refuses_what_sampling_refuses() -> None:
    made = language_model()
    with pytest.raises(ValueError, match="'Q'"):
        stream_text(made, "Q")
    with pytest.raises(ValueError, match="length=-1"):
        stream_text(made, length=-1)
    with pytest.raises(ValueError, match="temperature"):
        list(stream_text(made, temperature=-1.0))
    with pytest.raises(ValueError, match="sampling needs a decoder"):
        stream_text(translator())


def test_token_probabilities_are_what_sample_draws_with(generator: torch.Generator) -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    found = token_probabilities(logits, temperature=2.0, top_k=2, forbidden=[0])
    torch.testing.assert_close(found, torch.tensor([[0.0, *(torch.tensor([0.5, 0.0]).softmax(0)), 0.0]]))
    assert token_probabilities(logits, temperature=0.0).tolist() == [[1.0, 0.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="no token is allowed"):
        token_probabilities(logits, forbidden=[0, 1, 2, 3])


@pytest.mark.parametrize("line", ["two", "one two three. four five! three.", ""])
def test_attended_translations_are_those_of_the_search(line: str) -> None:
    made, options = translator(attention=AdditiveAttention), Search(n_best=2)
    (expected,) = alternatives(made, [line], options=options, max_length=15)
    found = translate_attended(made, line, options=options, max_length=15)
    assert [one.text for one in found.candidates] == [one.text for one in expected]
    assert [one.score for one in found.candidates] == pytest.approx([one.score for one in expected], abs=1e-5)
    assert "".join("".join(piece.source) for piece in found.pieces) == line.replace(". ", ".").replace("! ", "!")
    for piece in found.pieces:
        ids = torch.tensor([LETTERS.encode("".join(piece.source))])
        written = torch.tensor([[LETTERS.start, *LETTERS.encode("".join(piece.written))]])
        with torch.no_grad():
            weights = made.network(ids, None, written).weights[0]
        assert piece.weights is not None
        torch.testing.assert_close(piece.weights, weights, atol=1e-5, rtol=1e-4)


def test_without_attention_there_are_no_weights() -> None:
    (piece,) = translate_attended(translator(), "two").pieces
    assert piece.weights is None
    (piece,) = translate_attended(
        translator(attention=AdditiveAttention), "two", options=Search(temperature=1.0)
    ).pieces
    assert piece.weights is None


def test_an_attended_caption_is_that_of_the_search() -> None:
    image = pytest.importorskip("PIL.Image")
    torch.manual_seed(0)
    encoder = ImageEncoder(SmallTrunk(3, [8], [4]), size=6)
    decoder = partial(AutoregressiveDecoder.of_tokens, LETTERS.size, 5, CORE, AdditiveAttention)
    made = Bundle(EncoderDecoder(encoder, decoder).eval(), Processor(ImageTransform(size=32), LETTERS), {})
    file = io.BytesIO()
    image.effect_noise((40, 30), 90).save(file, "PNG")
    found = caption_attended(made, file.getvalue())
    assert [found.candidates[0].text] == list(caption(made, [file.getvalue()]))
    assert found.weights is not None
    assert found.weights.shape[0] == len(found.written) + 1
    torch.testing.assert_close(found.weights.sum(1), torch.ones(len(found.written) + 1))
    assert int(found.weights.shape[1] ** 0.5) ** 2 == found.weights.shape[1]


def test_a_time_limit_ends_every_search() -> None:
    decoder: Any = language_model().network
    state, memory = decoder.start(1)
    start = torch.tensor([LETTERS.start])
    frames = torch.randn(1, 20_000, 4)
    searches: list[Callable[[], Any]] = [
        lambda: sample(decoder, state, memory, start=start, max_length=10**6),
        lambda: beam_search(decoder, state, memory, start=start, stop=0, max_length=10**5, min_length=10**5),
        lambda: ctc_beam_search(frames),
        lambda: list(stream_text(language_model(), length=10**6)),
    ]
    for run in searches:
        began = time.monotonic()
        with pytest.raises(TimeLimitError, match="the time limit is over"), time_limit(0.05):
            run()
        assert time.monotonic() - began < 5.0
    assert len(sample(decoder, state, memory, start=start, max_length=3).values[0]) == 3  # the limit is over
