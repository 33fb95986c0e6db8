"""Sessions: equal to the whole at once, to each other in a pool, and to themselves after they were saved."""

import itertools
import random
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unrolled import (
    AttentionPooling,
    AudioFeatures,
    AutoregressiveDecoder,
    AutoregressiveForecaster,
    ByteTokenizer,
    CategoricalHead,
    CharacterTokenizer,
    ConcatPooling,
    CTCHead,
    DirectForecaster,
    EncoderDecoder,
    FeatureEncoder,
    FrameEmbedding,
    GRUCell,
    LabelEncoder,
    LabelSequenceEncoder,
    LabelsHead,
    LastPooling,
    LSTMCell,
    MeanPooling,
    NumbersHead,
    PeepholeLSTMCell,
    PianoRoll,
    Processor,
    Recurrent,
    RecurrentEncoder,
    SentenceTokenizer,
    SequenceClassifier,
    SequenceTagger,
    SeriesScaler,
    SeriesTransform,
    SpacedTokenizer,
    SpelledWordEmbedding,
    SpelledWords,
    TokenEmbedding,
    TokenizedWords,
    Tokenizer,
    WidePath,
    WordTokenizer,
)
from unrolled.checkpoint import Bundle
from unrolled.deployment import Prediction, Session, SessionPool, TaggedWord, classify, tag
from unrolled.deployment.forecasting import forecast_series
from unrolled.deployment.streaming.saving import pack
from unrolled.processing.series.table import SeriesColumns, TimeSeries
from unrolled.processing.series.times import Frequency

TEXT = "the cat sat  on the mat.\nIt didn't see a dog, nor 12 birds: so it sat on, and on "
CORE = partial(Recurrent, LSTMCell, hidden_size=7)
PEEPHOLES = partial(Recurrent, PeepholeLSTMCell, hidden_size=7)
WORDS = TEXT.split()
CHARACTERS = CharacterTokenizer.fit([TEXT])
LABELS = LabelEncoder(["no", "yes", "maybe"])


def bundle(network: nn.Module, source: Any, target: Any = None) -> Bundle:
    """A network with random weights that are large enough for varied predictions."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.7)
    return Bundle(network.eval(), Processor(source, target), {})


def language_model(tokenizer: Any, core: Any = CORE) -> Bundle:
    return bundle(AutoregressiveDecoder.of_tokens(tokenizer.size, 5, core), tokenizer)


def text_classifier(tokenizer: Any, *, bidirectional: bool = False) -> Bundle:
    encoder = RecurrentEncoder.of_tokens(tokenizer.size, 5, CORE, bidirectional=bidirectional)
    pooling = partial(ConcatPooling, poolings=[MeanPooling, LastPooling, AttentionPooling])
    wide = partial(WidePath, vocabulary_size=tokenizer.size, num_buckets=64)
    network = SequenceClassifier(encoder, partial(CategoricalHead, num_classes=3), pooling, wide=wide)
    return bundle(network, tokenizer, LABELS)


def word_tagger(transform: Any, embedding: Any) -> Bundle:
    encoder = RecurrentEncoder(embedding, CORE, bidirectional=False)
    return bundle(
        SequenceTagger(encoder, partial(CategoricalHead, num_classes=3)), transform, LabelSequenceEncoder("abc")
    )


def frame_tagger(source: Any, head: Any, target: Any, **options: Any) -> Bundle:
    encoder = FeatureEncoder(source.output_size, CORE, bidirectional=False, **options)
    return bundle(SequenceTagger(encoder, head), source, target)


def forecaster(normalization: str = "none", kind: Any = AutoregressiveForecaster) -> Bundle:
    series = TimeSeries(
        "", datetime(2024, 5, 1), torch.rand(40, 2).double() * 5, torch.zeros(40, 0), torch.zeros(40, 0), (), "here"
    )
    transform = SeriesTransform.fit(
        [series], SeriesColumns(target=("up", "down")), Frequency.parse("1 hour"), context=64, horizon=3
    )
    network = kind(0, transform.future_size, 2, 3, NumbersHead, CORE, normalization=normalization)
    return bundle(network, transform)


SCALER = SeriesScaler(["x", "y"], [1.0, -2.0], [2.0, 0.5])
SPELLED = SpelledWords.fit([WORDS], min_count=1)
ROLL = PianoRoll(60, 71)
draw = torch.Generator().manual_seed(3)
AUDIO = AudioFeatures(8000, num_mels=8, normalization="running").fit([torch.rand(4000, generator=draw) - 0.5])
SAMPLES, ROWS = torch.rand(2500, generator=draw) - 0.5, torch.randn(30, 2, generator=draw)


class Case(NamedTuple):
    """A network, and a stream of it, which can be cut anywhere."""

    bundle: Bundle
    data: Any
    options: Any = MappingProxyType({})


CASES: dict[str, Case] = {
    "characters": Case(language_model(CHARACTERS), TEXT, {"top": 100}),
    "bytes, two layers": Case(language_model(ByteTokenizer(), partial(CORE, num_layers=2)), TEXT + "é", {"top": 300}),
    "words": Case(
        language_model(WordTokenizer.fit([TEXT]), partial(Recurrent, PeepholeLSTMCell, hidden_size=7)),
        TEXT,
        {"top": 100},
    ),
    "text": Case(text_classifier(CHARACTERS), TEXT),
    "sentences": Case(text_classifier(SentenceTokenizer.fit([TEXT], max_length=15)), TEXT),
    "spaced words": Case(text_classifier(SpacedTokenizer.fit([TEXT])), TEXT),
    "tags of words": Case(
        word_tagger(TokenizedWords(SPACED := SpacedTokenizer.fit([TEXT])), TokenEmbedding(SPACED.size, 5)), TEXT
    ),
    "tags of spelled words": Case(
        word_tagger(SPELLED, SpelledWordEmbedding(SPELLED.size, 5, SPELLED.alphabet_size, core=CORE)), WORDS
    ),
    "tags of characters": Case(word_tagger(TokenizedWords(CHARACTERS), TokenEmbedding(CHARACTERS.size, 5)), TEXT),
    "sound": Case(
        bundle(
            SequenceClassifier(
                FeatureEncoder(8, CORE, bidirectional=False, conv_channels=3, conv_frames=2),
                partial(LabelsHead, num_labels=3),
                MeanPooling,
            ),
            AUDIO,
            LabelEncoder("abc", multiple=True),
        ),
        SAMPLES,
        {"rate": 11025},
    ),
    "transcripts": Case(
        frame_tagger(AUDIO, partial(CTCHead, num_classes=5), CharacterTokenizer("abc")), SAMPLES, {"rate": 8000}
    ),
    "labels of rows": Case(
        frame_tagger(SCALER, partial(CategoricalHead, num_classes=3), LabelSequenceEncoder("abc")), ROWS
    ),
    "music": Case(
        bundle(AutoregressiveDecoder(FrameEmbedding(12), CORE, partial(LabelsHead, num_labels=12)), ROLL),
        [[60, 64], [], [67], [60, 62, 71], [61]] * 4,
    ),
    "rows of a series": Case(forecaster(), ROWS.tolist(), {"start": datetime(2024, 5, 3, 7)}),
}


def cut(data: Any, places: list[int]) -> list[Any]:
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(ends)]


def numbers(found: Any) -> Any:
    """A prediction with its labels in one order, and without those that rounding may change."""
    if isinstance(found, Prediction):
        return dict(sorted(found.values.items()))
    if isinstance(found, TaggedWord):
        return {found.word: found.probability}
    return [numbers(one) for one in found] if isinstance(found, list) else found


def assert_alike(found: Any, wanted: Any) -> None:
    if isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_alike(one, other)
    elif isinstance(wanted, dict):
        assert found == pytest.approx(wanted, abs=2e-5, rel=2e-5)
    else:
        assert found == wanted


def joined(parts: list[Any]) -> Any:
    """All predictions of a stream: of those of each step, all of them; of those for the whole, the last."""
    if isinstance(parts[0], str):
        return "".join(parts)
    return list(chain.from_iterable(map(numbers, parts))) if isinstance(parts[0], list) else numbers(parts[-1])


def whole(case: Case) -> Any:
    """What the network predicts of the whole at once, by other functions."""
    network, (source, target) = case.bundle.network, case.bundle.processor
    with torch.no_grad():
        if isinstance(network, SequenceClassifier):
            read = (case.data, case.options["rate"]) if "rate" in case.options else case.data
            return numbers(next(iter(classify(case.bundle, [read]))))
        if isinstance(network, SequenceTagger) and isinstance(source, TokenizedWords | SpelledWords):
            words = case.data.split() if isinstance(case.data, str) else case.data
            return [numbers(one) for one in next(iter(tag(case.bundle, [words])))]
        if isinstance(network, SequenceTagger):
            read = (case.data, case.options["rate"]) if "rate" in case.options else case.data
            parameters = network(source.encode(read).unsqueeze(0))
            if isinstance(network.head, CTCHead):
                return target.decode([label for label in network.head.started(parameters)[0].tolist() if label])
            rows = network.head.probabilities(parameters)[0].tolist()
            return [dict(sorted(zip(target.labels, row, strict=True))) for row in rows]
        if isinstance(network, AutoregressiveDecoder):
            if isinstance(source, Tokenizer):
                inputs = torch.tensor([source.start, *source.encode(case.data)])
                symbols = source.symbols(range(source.size))
                names = [s if s and symbols.count(s) == 1 else f"<{number}>" for number, s in enumerate(symbols)]
            else:
                inputs, names = torch.cat([torch.zeros(1, 12), source.encode(case.data)]), [*map(str, range(60, 72))]
            row = network.head.probabilities(network(inputs.unsqueeze(0)).parameters)[0, -1].tolist()
            return dict(sorted(zip(names, row, strict=True)))
        values = torch.tensor(case.data, dtype=torch.float64)
        nothing = torch.zeros(len(values), 0)
        series = TimeSeries("", case.options["start"], values, nothing, nothing, (), "here")
        found = forecast_series(network, source, series, len(values)).values[0].tolist()
        return dict(sorted(zip(("up", "down"), found, strict=True)))


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_stream_in_any_pieces_equals_the_whole(case: Case) -> None:
    wanted, pieces = whole(case), random.Random(1)
    session = Session(case.bundle, **case.options)
    for number in (0, 1, 9, len(case.data) if len(case.data) < 200 else 40):
        places = [pieces.randrange(len(case.data)) for _ in range(number)]
        parts = [session.feed(piece) for piece in cut(case.data, places)]
        assert_alike(joined([*parts, session.finish()]), wanted)  # and begins again


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_sessions_in_a_pool_equal_sessions_alone(case: Case) -> None:
    """In any order of joining and leaving, with different amounts of input."""
    drawn, pool = random.Random(2), SessionPool(case.bundle, **case.options)
    alone: dict[Session, Session] = {}
    places: dict[Session, int] = {}

    def join() -> None:
        session = pool.join()
        alone[session], places[session] = Session(case.bundle, **case.options), 0

    def more(session: Session) -> Any:
        begin, most = places[session] % len(case.data), len(case.data) // 3
        data = case.data[begin : begin + drawn.choice([0, 1, 2, most])]
        places[session] = begin + len(data)
        return data

    join()
    join()
    for _ in range(12):
        fed = {session: more(session) for session in drawn.sample(list(pool), drawn.randint(1, len(pool)))}
        for session, found in pool.feed(fed).items():
            assert_alike(numbers(found), numbers(alone[session].feed(fed[session])))
        session = drawn.choice(list(pool))
        if drawn.random() < 0.5 and len(pool) > 1:
            pool.leave(session)
            data = more(session)
            assert_alike(numbers(session.feed(data)), numbers(alone[session].feed(data)))
        if drawn.random() < 0.3:
            pool.join(session)
        join()
    for session, place in places.items():
        data = case.data[place % len(case.data) :]
        assert_alike(numbers(session.feed(data)), numbers(alone[session].feed(data)))
    finished = pool.finish(pool)
    for session, found in finished.items():
        assert_alike(numbers(found), numbers(alone[session].finish()))


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
@pytest.mark.parametrize("share", [0.0, 0.3, 0.61])
def test_a_saved_session_goes_on_to_the_last_bit(case: Case, share: float) -> None:
    place = int(share * len(case.data))
    one = Session(case.bundle, **case.options)
    if place:
        one.feed(case.data[:place])
    other = Session.restore(case.bundle, one.save(), **case.options)
    assert other.save() == one.save()
    for piece in cut(case.data[place:], [5, 11]):
        assert one.feed(piece) == other.feed(piece)
    assert one.save() == other.save()
    assert one.finish() == other.finish()


def test_bytes_of_another_network_and_damaged_bytes_are_refused() -> None:
    made = language_model(CHARACTERS)
    session = Session(made)
    session.feed("the c")
    saved = session.save()
    with torch.no_grad():
        made.network.head.linear.bias[0] += 1e-3
    for other, options in (
        (made, {}),
        (CASES["bytes, two layers"].bundle, {}),
        (CASES["sound"].bundle, {"rate": 8000}),
    ):
        with pytest.raises(ValueError, match="belongs to another network, or to other options"):
            Session.restore(other, saved, **options)
    same = language_model(CHARACTERS)
    assert Session.restore(same, saved, top=3).feed("at").label
    for place in range(0, len(saved), 37):
        damaged = saved[:place] + bytes([saved[place] ^ 4]) + saved[place + 1 :]
        with pytest.raises(ValueError, match=r"damaged|not the bytes of a session"):
            Session.restore(same, damaged)
    for nothing in (b"", saved[:-1], saved + b"\0", "text", None):
        with pytest.raises(ValueError, match=r"damaged|not the bytes of a session"):
            Session.restore(same, nothing)  # pyright: ignore
    for other in (pack({"state": []}), pack({"fingerprint": datetime(2024, 1, 1)})):  # with a right digest
        with pytest.raises(ValueError, match=r"not those of a session|not readable \(UnpicklingError\)"):
            Session.restore(same, other)
    rate = Session(CASES["sound"].bundle, rate=8000).save()
    with pytest.raises(ValueError, match="other options"):
        Session.restore(CASES["sound"].bundle, rate, rate=16000)


def test_networks_that_need_whole_inputs_are_refused() -> None:
    pair = EncoderDecoder(RecurrentEncoder.of_tokens(9, 5, CORE), partial(AutoregressiveDecoder.of_tokens, 9, 5, CORE))
    sourced = AutoregressiveDecoder.of_tokens(CHARACTERS.size, 5, CORE, source_size=3)
    text = text_classifier(CHARACTERS, bidirectional=True)
    sound, letters = CASES["sound"].bundle, CASES["characters"].bundle
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: Session(text), "bidirectional; .* encoder.token.bidirectional=false"),
        (lambda: Session(bundle(pair, CHARACTERS, CHARACTERS)), "an EncoderDecoder reads its whole source before"),
        (lambda: Session(bundle(sourced, CHARACTERS)), "needs a decoder that was built without source_size"),
        (lambda: Session(forecaster(kind=DirectForecaster)), "a whole window at once; .* forecaster=autoregressive"),
        (lambda: Session(forecaster("last")), "normalization=last .* forecaster.normalization=none"),
        (lambda: Session(forecaster()), "reads the calendar: pass start"),
        (lambda: Session(forecaster(), start=datetime(2024, 1, 1), series="b"), "series='b' is not one of training"),
        (lambda: Session(sound), "reads sound: pass rate"),
        (lambda: Session(Bundle(GRUCell(2, 3), Processor(CHARACTERS, None), {})), "a GRUCell can't read a stream"),
        (lambda: Session(letters, top=0), "top=0"),
        (lambda: SessionPool(letters, limit=0), "limit=0"),
    ]
    for make, message in refused:
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("characters", "a@b", "has symbols that training data did not contain: '@'"),
        ("characters", 3, "an int arrived; this network reads text"),
        ("sound", torch.tensor([0.1, torch.nan]), "sample 1 of 2 is not finite"),
        ("labels of rows", torch.zeros(2, 3), "series has the shape"),
        ("music", [[200]], "expected MIDI pitches"),
        ("rows of a series", [[1.0]], r"rows are \(1, 1\), expected \(steps, 2\): up, down"),
        ("rows of a series", [{"left": 1.0}], "has none of the targets up, down"),
    ],
)
def test_what_cannot_be_read_changes_no_session(name: str, wrong: Any, message: str) -> None:
    case = CASES[name]
    pool = SessionPool(case.bundle, **case.options)
    one, two = pool.join(), pool.join()
    pool.feed({one: case.data[:20], two: case.data[:9]})
    before = one.save(), two.save()
    with pytest.raises(ValueError, match=message):
        pool.feed({one: case.data[20:], two: wrong})
    assert (one.save(), two.save()) == before


def test_rows_may_be_mappings_and_miss_numbers() -> None:
    case = CASES["rows of a series"]
    one, two = (Session(case.bundle, **case.options) for _ in range(2))
    assert one.feed([{"up": 2.0, "down": None}, {"up": 1.0}]) == two.feed([[2.0, torch.nan], [1.0, None]])
    assert set(one.feed([]).values) == {"up", "down"}


def test_a_session_writes_what_its_odds_say() -> None:
    case = CASES["characters"]
    session, other = (Session(case.bundle, **case.options) for _ in range(2))
    session.feed("the cat")
    text = session.write(20, temperature=0)
    assert session.write(0) == ""
    other.feed("the cat")
    for character in text:
        assert other.feed("").label == character
        other.feed(character)
    assert_alike(numbers(session.feed("")), numbers(other.feed("")))
    drawn = [session.write(20, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    assert drawn[0] != drawn[1]
    assert "�" not in "".join(drawn)
    words = Session(CASES["words"].bundle)
    words.feed("the cat")  # the last word may go on, but not after what is written
    assert len(CASES["words"].bundle.processor.source.encode(words.write(4, temperature=0))) <= 4
    with pytest.raises(ValueError, match="only a session of a language model writes"):
        Session(CASES["text"].bundle).write(3)


def test_pools_have_a_limit_and_evict_the_longest_idle() -> None:
    case = CASES["characters"]
    pool = SessionPool(case.bundle, limit=3)
    first, second, third = (pool.join() for _ in range(3))
    with pytest.raises(ValueError, match="the pool has 3 sessions, which is its limit"):
        pool.join()
    pool.feed({first: "the", second: "cat", third: "sat"})
    time.sleep(0.05)
    pool.feed({first: "t"})
    assert pool.evict(idle=60.0) == []
    assert first.idle < 0.05 <= second.idle
    assert set(pool.evict(idle=0.04)) == {second, third}
    assert list(pool) == [first]
    with pytest.raises(ValueError, match="not in this pool"):
        pool.feed({second: "t"})
    assert pool.join(second) is second
    assert pool.evict(limit=1) == [second] or len(pool) == 1
    with pytest.raises(ValueError, match="another network, or has other options"):
        SessionPool(case.bundle, top=3).join(first)


def test_the_memory_of_a_session_is_that_of_its_state() -> None:
    session = Session(CASES["characters"].bundle)
    assert session.nbytes == 2 * 7 * 4  # h and c
    session.feed("the cat")
    assert session.nbytes == 2 * 7 * 4 + 4 * CHARACTERS.size  # and the last logits
    saved = len(session.save())
    session.feed(TEXT)
    assert len(session.save()) == pytest.approx(saved, abs=64)


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="ab c'.\n\té-1", max_size=30), st.text(alphabet="ab c'.\n\té-1", max_size=10))
def test_settled_text_keeps_its_ids_whatever_follows(text: str, more: str) -> None:
    vocabulary = "ab c'.\n\té-1 abc ab'c"
    kinds = [WordTokenizer, SentenceTokenizer, SpacedTokenizer, CharacterTokenizer, ByteTokenizer]
    for tokenizer in (kind.fit([vocabulary]) for kind in kinds):
        place = tokenizer.settled(text)
        assert tokenizer.encode(text[:place]) + tokenizer.encode(text[place:] + more) == tokenizer.encode(text + more)


def test_a_session_runs_in_inference_mode_and_out_of_it() -> None:
    case = CASES["characters"]
    one, two = Session(case.bundle), Session(case.bundle)
    with torch.inference_mode():
        one.feed("the ")
    two.feed("the ")
    assert one.feed("cat") == two.feed("cat")
