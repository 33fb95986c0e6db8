"""Subwords: spelled as the library that learned them spells, given back as they were."""

import json
import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from unrolled.descriptions import TRUSTED, build
from unrolled.processing.text.subword import BPETokenizer, SubwordTokenizer, UnigramTokenizer, words
from unrolled.training.data.subwords import train_subwords

TEXTS = [
    "A little girl climbs into a wooden playhouse, singing.",
    "Ein kleines Mädchen klettert in ein Spielhaus aus Holz.",
    "Two men (one old, one young) are climbing; the girl's singing, singing!",
    "Zwei Männer klettern – und das Mädchen singt und singt.",
] * 3


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> SubwordTokenizer:
    return train_subwords(TEXTS, 90, kind=request.param)


def reference(tokenizer: SubwordTokenizer) -> Tokenizer:
    """The same model in the library's own hands."""
    vocabulary = ["<start>", "<unknown>", *tokenizer.pieces]
    if isinstance(tokenizer, BPETokenizer):
        ids = {piece: index for index, piece in enumerate(vocabulary)}
        return Tokenizer(models.BPE(ids, tokenizer.merges, unk_token="<unknown>"))
    assert isinstance(tokenizer, UnigramTokenizer)
    scored = [("<start>", 0.0), ("<unknown>", 0.0), *zip(tokenizer.pieces, tokenizer.scores, strict=True)]
    return Tokenizer(models.Unigram(scored, 1, False))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(text=st.text(alphabet="aeginst lr,.(-)Mäß\n\té😀x", max_size=40))
def test_words_are_spelled_as_the_library_spells_them(tokenizer: SubwordTokenizer, text: str) -> None:
    library = reference(tokenizer)
    expected = [index for word in words(text) for index in library.encode(word).ids]

    assert tokenizer.encode(text) == expected


@settings(deadline=None, derandomize=True)
@given(chosen=st.lists(st.sampled_from(" ".join(TEXTS).split()), max_size=8))
def test_a_text_comes_back_as_it_was(tokenizer: SubwordTokenizer, chosen: list[str]) -> None:
    text = " ".join(chosen)

    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([tokenizer.start, *tokenizer.encode(f"  {text} \n")]) == text


@settings(deadline=None, derandomize=True, max_examples=80)
@given(text=st.text(alphabet="aeginst lr,.(-)Mäß\n\té😀x", max_size=40))
def test_merges_that_are_never_or_almost_always_passed_over(text: str) -> None:
    tokenizer = train_subwords(TEXTS, 90)
    assert isinstance(tokenizer, BPETokenizer)

    assert tokenizer.encode_dropped(text, 0.0, random.Random(0)) == tokenizer.encode(text)
    letters = tokenizer.encode_dropped(text, 1 - 1e-12, random.Random(0))
    assert len(letters) == sum(map(len, words(text)))


def test_dropped_merges_spell_the_same_text_in_many_ways() -> None:
    tokenizer, generator = train_subwords(TEXTS, 90), random.Random(0)
    assert isinstance(tokenizer, BPETokenizer)

    spellings = [tokenizer.encode_dropped(TEXTS[0], 0.1, generator) for _ in range(40)]

    assert {tokenizer.decode(ids) for ids in spellings} == {TEXTS[0]}
    assert len({tuple(ids) for ids in spellings}) > 20
    assert len(tokenizer.encode(TEXTS[0])) < sum(map(len, spellings)) / 40 < len(TEXTS[0])


def test_each_merge_is_passed_over_with_its_probability() -> None:
    tokenizer, generator = BPETokenizer(["a", "b", "ab", "▁", "▁ab"], [("a", "b"), ("▁", "ab")]), random.Random(0)

    whole = [len(tokenizer.encode_dropped("ab", 0.3, generator)) for _ in range(4000)]

    assert sum(length == 3 for length in whole) / 4000 == pytest.approx(0.3, abs=0.03)  # the first merge was dropped
    assert sum(length == 2 for length in whole) / 4000 == pytest.approx(0.7 * 0.3, abs=0.03)  # only the second


def test_a_codec_is_plain_data_and_comes_back(tokenizer: SubwordTokenizer) -> None:
    plain = json.loads(json.dumps(tokenizer.to_dict()))

    again = build(plain, trusted=TRUSTED)

    assert again.to_dict() == tokenizer.to_dict()
    assert again.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
    assert tokenizer.size <= 90
    assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0]) / 1.5


def test_training_again_gives_the_same_pieces(tokenizer: SubwordTokenizer) -> None:
    again = train_subwords(TEXTS, 90, kind="bpe" if isinstance(tokenizer, BPETokenizer) else "unigram")

    assert sorted(again.pieces) == sorted(tokenizer.pieces)
    if isinstance(tokenizer, BPETokenizer):
        assert again.to_dict() == tokenizer.to_dict()


def test_a_vocabulary_below_the_alphabet_is_refused() -> None:
    with pytest.raises(ValueError, match=r"vocabulary_size=10 is too small: the text has \d\d different"):
        train_subwords(TEXTS, 10)
    with pytest.raises(ValueError, match="empty"):
        train_subwords(["", " "], 10)
    with pytest.raises(ValueError, match="iterated twice, and a list_iterator"):
        train_subwords(iter(TEXTS), 90)
    with pytest.raises(ValueError, match="subwords='wordpiece'"):
        train_subwords(TEXTS, 90, kind="wordpiece")


@settings(derandomize=True, deadline=None)
@given(st.data())
def test_merges_in_a_heap_are_merges_one_by_one(data: st.DataObject) -> None:
    pieces, merges = list("abc"), list[tuple[str, str]]()
    for _ in range(data.draw(st.integers(0, 20))):
        pair = data.draw(st.sampled_from(pieces)), data.draw(st.sampled_from(pieces))
        merges += [pair] * (pair not in merges)
        pieces += ["".join(pair)] * ("".join(pair) not in pieces)
    tokenizer = BPETokenizer(pieces, data.draw(st.permutations(merges)))
    word = data.draw(st.text("abcd", max_size=40))

    # As Sennrich et al. 2016 have it: of all pairs the one that was learned first, the leftmost of these.
    parts = list(word)
    while pairs := [pair for pair in pairwise(parts) if pair in tokenizer.merges]:
        place = list(pairwise(parts)).index(min(pairs, key=tokenizer.merges.index))
        parts[place : place + 2] = ["".join(parts[place : place + 2])]

    assert tokenizer.symbols(tokenizer._spell(word)) == [
        part if part in pieces else "\N{REPLACEMENT CHARACTER}" for part in parts
    ]


def test_a_text_without_blanks_takes_time_by_its_length() -> None:
    tokenizer = BPETokenizer(["a", "b", "ab", "abab"], [("a", "b"), ("ab", "ab")])

    began = time.process_time()
    assert tokenizer.encode("ab" * 100_000) == [1, *[5] * 50_000]
    assert time.process_time() - began < 10  # a search through all pairs for each merge takes hours
