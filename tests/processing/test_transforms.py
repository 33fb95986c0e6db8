"""Transforms: what is encoded comes back, descriptions survive a checkpoint, and nothing else passes for one."""

import json
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled import (
    AudioFeatures,
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    ImageSequence,
    ImageTransform,
    LabelEncoder,
    LabelSequenceEncoder,
    Processor,
    Scaler,
    SentenceTokenizer,
    SeriesScaler,
    SpacedTokenizer,
    SpelledWords,
    TaggedTokenizer,
    TokenizedWords,
    Tokenizer,
    Transform,
    UnigramTokenizer,
    WordTokenizer,
    build,
    build_processor,
    load_bundle,
)
from unrolled.descriptions import TRUSTED, CheckpointError

law = settings(max_examples=60, derandomize=True, deadline=None)
PIECES = ["▁", "a", "b", "c", "ab", "▁ab", "!", "é", "\N{KELVIN SIGN}".lower()]
MERGES = [("a", "b"), ("▁", "ab")]
TOKENIZERS: list[Tokenizer] = [
    make(lowercase, max_length)
    for lowercase in (False, True)
    for max_length in (None, 3)
    for make in (
        lambda lower, most: CharacterTokenizer("abc é!\n", lower, most),
        lambda lower, most: ByteTokenizer(lower, most),
        lambda lower, most: WordTokenizer(["a", "ab", " ", "!", "c"], lower, most),
        lambda lower, most: SentenceTokenizer(["a", "ab", "!", "a-b"], lower, most),
        lambda lower, most: SpacedTokenizer(["a", "ab", "c!"], lower, most),
        lambda lower, most: TaggedTokenizer("abc é!\n", ["b", "n(1,sg)", "pst"], lower, most),
        lambda lower, most: BPETokenizer(PIECES, MERGES, lower, most),
        lambda lower, most: UnigramTokenizer(PIECES, [-float(n) for n in range(len(PIECES))], lower, most),
    )
]
text = st.text(st.sampled_from("abcdABÉé !-\n▁\t;,(") | st.characters(codec="utf-8"), max_size=12)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda t: f"{type(t).__name__}-{t.lowercase}-{t.max_length}")
@law
@given(value=text)
def test_a_text_comes_back_normalized(tokenizer: Tokenizer, value: str) -> None:
    ids = tokenizer.encode(value)

    assert tokenizer.decode(ids, given=value) == tokenizer.normalize(value)
    assert tokenizer.max_length is None or len(ids) <= tokenizer.max_length


@pytest.mark.parametrize("tokenizer", TOKENIZERS[:16], ids=lambda t: f"{type(t).__name__}-{t.max_length}")
@law
@given(value=st.text(st.sampled_from("abc é!"), max_size=12))
def test_a_known_text_is_its_own_normal_form_but_for_white_space(tokenizer: Tokenizer, value: str) -> None:
    if tokenizer.max_length is None and isinstance(tokenizer, (CharacterTokenizer, ByteTokenizer)):
        assert tokenizer.normalize(value) == value
    if tokenizer.max_length is None and isinstance(tokenizer, (BPETokenizer, UnigramTokenizer)):
        assert tokenizer.normalize(value) == " ".join(value.split())


LABELS = st.lists(st.sampled_from("abcd"), max_size=6)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda t: f"{type(t).__name__}-{t.lowercase}-{t.max_length}")
@law
@given(words=st.lists(st.text(min_size=1, max_size=6).filter(lambda word: word.split() == [word]), max_size=6))
def test_words_of_a_text_are_found_in_its_ids(tokenizer: Tokenizer, words: list[str]) -> None:
    try:
        ids, starts = tokenizer.encode_words(words)
    except ValueError as error:
        unknown = next(word for word in words if repr(word) in str(error))
        assert tokenizer.unknown is None
        assert not tokenizer.encode(unknown)
        return

    assert len(starts) <= len(words)
    assert tokenizer.max_length is not None or len(starts) == len(words)
    assert len(ids) <= (tokenizer.max_length or len(ids))
    for word, begin, after in zip(words, starts, [*starts[1:], len(ids)], strict=False):
        own = [index for piece in tokenizer.encode_pieces([word]) for index in piece] or [tokenizer.unknown]
        assert ids[begin : begin + len(own)] == own
        assert begin + len(own) <= after
    if all(tokenizer.encode(word) for word in words):
        assert ids == tokenizer.encode(" ".join(words))[: len(ids)]


def test_what_is_no_word_is_refused() -> None:
    for wrong in ("", "a b", " a", "a\n"):
        with pytest.raises(ValueError, match="is not a word"):
            TOKENIZERS[0].encode_words(["a", wrong])


@law
@given(labels=LABELS, one=st.sampled_from("abcd"))
def test_labels_come_back(labels: list[str], one: str) -> None:
    single, several = LabelEncoder(list("dcab")), LabelEncoder(list("dcab"), multiple=True)

    assert single.decode(single.encode(one)) == single.normalize(one) == one
    assert several.decode(several.encode(labels)) == several.normalize(labels)
    assert set(several.normalize(labels)) == set(labels)
    batch, lengths = several.collate([several.encode(labels), several.encode([])])
    assert batch.sum().item() == len(set(labels))
    assert lengths.tolist() == [1, 1]


NUMBER = st.floats(-1e12, 1e12)


@law
@given(labels=LABELS)
def test_labels_of_steps_come_back(labels: list[str]) -> None:
    several = LabelSequenceEncoder(list("dcba"))

    assert several.decode(several.encode(labels)) == several.normalize(labels) == labels
    padded, lengths = several.collate([several.encode(labels), [1, 1]])
    assert lengths.tolist() == [len(labels), 2]
    assert several.decode(padded[0, : len(labels)]) == labels
    with pytest.raises(ValueError, match="is a text, expected a sequence"):
        several.encode("abc")


WORDS = st.lists(st.text(st.sampled_from("abcAé!-") | st.characters(), min_size=1, max_size=5), max_size=6).map(
    lambda words: [word for word in words if word.split() == [word]]
)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda t: f"{type(t).__name__}-{t.lowercase}-{t.max_length}")
@law
@given(words=WORDS)
def test_words_come_back_as_far_as_they_are_known(tokenizer: Tokenizer, words: list[str]) -> None:
    transform = TokenizedWords(tokenizer)
    try:
        ids = transform.encode(words)
    except ValueError:
        assert tokenizer.unknown is None
        return

    found = transform.decode(ids, words)

    assert found == transform.normalize(words)
    assert len(found) == len(words) or tokenizer.max_length is not None
    plain = type(tokenizer) in (CharacterTokenizer, ByteTokenizer) and not tokenizer.lowercase
    for word, back in zip(words, found, strict=False):
        if plain and all(letter in "abc é!" for letter in word):
            assert back == word


@law
@given(texts=st.lists(WORDS, min_size=1, max_size=3))
def test_spelled_words_have_their_word_and_their_characters(texts: list[list[str]]) -> None:
    known = SpacedTokenizer(["a", "ab", "é!"], True)
    letters = CharacterTokenizer("abcAé!-")
    transform = SpelledWords(known, letters, 4)
    encoded = [transform.encode_words(words) for words in texts]

    padded, lengths = transform.collate([rows for rows, _ in encoded])

    for row, (words, (_, starts)) in enumerate(zip(texts, encoded, strict=True)):
        assert starts == list(range(len(words)))
        assert int(lengths[row]) == len(words)
        for place, word in enumerate(words):
            index, *spelled = padded[row, place].tolist()
            assert index == known.encode(word)[0]
            shown = word if len(word) <= 4 else word[:2] + word[-2:]
            assert [i for i in spelled if i] == letters.encode(shown)
        assert not padded[row, len(words) :].any()


def test_what_is_no_tokenizer_of_words_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a Tokenizer"):
        TokenizedWords("abc")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="must be a SpacedTokenizer"):
        SpelledWords(TOKENIZERS[0], CharacterTokenizer("a"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="max_characters=1: expected 2 or more"):
        SpelledWords(SpacedTokenizer(["a"]), CharacterTokenizer("a"), 1)
    with pytest.raises(ValueError, match="pass the words that were encoded"):
        TokenizedWords(TOKENIZERS[0]).decode([3])
    fitted = SpelledWords.fit([["The", "cat"], ["the", "dog"]])
    assert fitted.words.words == ["the"]
    assert set(fitted.characters.characters) == set("The catthe dog")


@law
@given(values=st.tuples(NUMBER, NUMBER), center=NUMBER, scale=st.floats(1e-3, 1e6))
def test_numbers_come_back_in_double_precision(values: tuple[float, float], center: float, scale: float) -> None:
    scaler = Scaler(["x", "y"], [center, 0.0], [scale, 1.0])

    restored = scaler.decode(scaler.encode(values), given=values)

    assert restored == pytest.approx(scaler.normalize(values), rel=1e-12, abs=1e-12 * abs(center))


@law
@given(offset=st.floats(-1e9, 1e9), scale=st.floats(1e-3, 1e3))
def test_a_series_comes_back_as_far_as_float32_resolves_its_scale(offset: float, scale: float) -> None:
    series = offset + scale * torch.linspace(-3, 3, 7, dtype=torch.float64).unsqueeze(1)
    scaler = SeriesScaler(["x"], [offset], [scale])

    restored = scaler.decode(scaler.encode(series), given=series)

    torch.testing.assert_close(restored, scaler.normalize(series), rtol=0, atol=1e-6 * scale + 1e-15 * abs(offset))


EVERY: list[Transform] = [
    *TOKENIZERS,
    LabelEncoder(["no", "yes"]),
    LabelEncoder(["a"], multiple=True),
    LabelSequenceEncoder(["NOUN", "VERB"]),
    *(TokenizedWords(tokenizer) for tokenizer in TOKENIZERS[:7]),
    SpelledWords(SpacedTokenizer(["a", "ab"], True), CharacterTokenizer("abAB"), 5),
    Scaler(["x"], [1e8], [0.25]),
    Scaler(["p"], [0.0], [1.0], bounded=True),
    SeriesScaler(["x", "y"], [0.1, 1e9], [1.0, 3.0]),
    ImageSequence((8, 8), 3, "patches", patch=4, stride=2, center=0.3, scale=0.2),
    ImageTransform(16, grey=True, mean=[0.5], std=[0.25]),
    AudioFeatures(8000, num_mels=12, normalization="fitted", centers=[0.5] * 12, scales=[2.0] * 12),
]


@pytest.mark.parametrize("transform", EVERY, ids=lambda t: type(t).__name__)
def test_a_description_survives_a_real_checkpoint(transform: Transform, tmp_path: Path) -> None:
    path = tmp_path / "made.ckpt"
    network = {"_target_": "torch.nn.Identity"}
    processor = Processor(transform, LabelEncoder(["a", "b"])).to_dict()
    ours = {"format": 2, "network": network, "processor": json.loads(json.dumps(processor)), "info": {}}
    torch.save({"unrolled": ours, "state_dict": {}}, path)

    again = load_bundle(path).processor

    assert type(again.source) is type(transform)
    assert again.to_dict() == processor


def test_equal_sides_are_one_object() -> None:
    tokenizer = CharacterTokenizer("ab")

    joint = build_processor(Processor(tokenizer, tokenizer).to_dict())
    apart = build_processor(Processor(tokenizer, CharacterTokenizer("ba")).to_dict())

    assert joint.source is joint.target
    assert apart.source is not apart.target
    assert build_processor(Processor(tokenizer).to_dict()).target is None


class NotOurs(Transform):
    def encode(self, value: Any) -> Any:
        return value

    def collate(self, encoded: Any) -> Any:
        return encoded

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": f"{__name__}.NotOurs"}


CHARACTERS = {"_target_": "unrolled.CharacterTokenizer", "characters": string.ascii_letters}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({**CHARACTERS, "_partial_": True}, "source describes a dict, expected a transform"),
        ({"_target_": "torch.nn.Identity"}, "source describes an Identity, expected a transform"),
        ({"characters": "ab"}, "source describes a dict, expected a transform"),
        ("unrolled.ByteTokenizer", "source describes a str, expected a transform"),
        (None, "source describes missing|source describes a NoneType|source describes"),
        (CHARACTERS["characters"], "expected a transform"),
        ({"_target_": f"{__name__}.NotOurs"}, "outside the trusted modules"),
        ({"_target_": "unrolled.Processor", "source": CHARACTERS}, "not a network or transform class"),
        ({"_target_": "unrolled.CharacterTokenizer.fit", "texts": ["a"]}, "not a network or transform class"),
        ({**CHARACTERS, "characters": {"_target_": "torch.nn.Identity", "_partial_": True}}, "expected a transform"),
    ],
)
def test_what_is_no_transform_is_refused_by_name(source: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "made.ckpt"
    processor = {"source": source, "target": None}
    ours = {"format": 2, "network": {"_target_": "torch.nn.Identity"}, "processor": processor, "info": {}}
    torch.save({"unrolled": ours, "state_dict": {}}, path)

    with pytest.raises(CheckpointError, match=message):
        load_bundle(path)


def test_a_processor_has_two_sides_and_nothing_else() -> None:
    with pytest.raises(CheckpointError, match=r"a source and a target, got \['source'\]"):
        build_processor({"source": CHARACTERS}, trusted=TRUSTED)


def test_a_transform_of_ones_own_is_built_when_it_is_trusted() -> None:
    assert isinstance(build({"_target_": f"{__name__}.NotOurs"}, trusted=(*TRUSTED, f"{__name__}.")), NotOurs)
    assert build(NotOurs().to_dict()).encode(3) == 3
    with pytest.raises(ValueError, match=r"NotOurs cannot be decoded"):
        NotOurs().decode(3)
