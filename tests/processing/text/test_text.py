"""Tokenizers: text comes back as it was, ids are stable, and what cannot be read is refused."""

import json
import re
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.descriptions import TRUSTED, build
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.spaced import SpacedTokenizer
from unrolled.processing.text.tokenizers import (
    TOKENIZERS,
    ByteTokenizer,
    CharacterTokenizer,
    SentenceTokenizer,
    WordTokenizer,
)

law = settings(derandomize=True, deadline=None)
UNITS = sorted(TOKENIZERS)


@law
@given(st.text(min_size=1), st.sampled_from(UNITS))
def test_decoding_gives_the_text_back(text: str, unit: str) -> None:
    tokenizer = TOKENIZERS[unit].fit([text])

    ids = tokenizer.encode(text)

    assert tokenizer.decode(ids) == text
    assert all(0 <= index < tokenizer.size for index in ids)
    assert tokenizer.start not in ids
    assert tokenizer.unknown not in ids


@law
@given(st.text(alphabet="ab é\n,'", min_size=1), st.lists(st.integers(0, 20)), st.sampled_from(UNITS))
def test_a_text_in_pieces_is_the_whole_text(text: str, cuts: list[int], unit: str) -> None:
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:stop] for start, stop in zip(borders, [*borders[1:], None], strict=True)]

    tokenizer = TOKENIZERS[unit].fit([iter(pieces)])

    assert tokenizer.to_dict() == TOKENIZERS[unit].fit([text]).to_dict()
    assert [index for ids in tokenizer.encode_pieces(pieces) for index in ids] == tokenizer.encode(text)


@law
@given(
    st.text(alphabet="ab \u2003\n,'-"),
    st.lists(st.integers(0, 20)),
    st.sampled_from([SentenceTokenizer, SpacedTokenizer]),
)
def test_words_in_pieces_are_those_of_the_whole(text: str, cuts: list[int], kind: type[Tokenizer]) -> None:
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:stop] for start, stop in zip(borders, [*borders[1:], None], strict=True)]
    tokenizer = kind(["a", "ab", "b", "ba", "a'b"])

    words = text.split() if kind is SpacedTokenizer else re.findall(r"\w+(?:['’\-]\w+)*|['’]\w+|[^\w\s]", text)
    expected = [tokenizer.words.index(word) + 2 if word in tokenizer.words else 1 for word in words]
    assert [index for ids in tokenizer.encode_pieces(pieces) for index in ids] == expected
    assert tokenizer.encode(text) == expected


@law
@given(st.text(min_size=1), st.sampled_from(UNITS))
def test_plain_data_hold_the_whole_codec(text: str, unit: str) -> None:
    tokenizer = TOKENIZERS[unit].fit([text])

    again = build(json.loads(json.dumps(tokenizer.to_dict())), trusted=TRUSTED)

    assert type(again) is type(tokenizer)
    assert again.encode(text) == tokenizer.encode(text)
    assert (again.size, again.start, again.unknown) == (tokenizer.size, tokenizer.start, tokenizer.unknown)


def test_characters_are_numbered_in_order_after_start_and_unknown() -> None:
    tokenizer = CharacterTokenizer.fit(["banana", "c"])

    assert tokenizer.characters == "abcn"
    assert tokenizer.encode("cab?") == [4, 2, 3, 1]
    assert tokenizer.decode([0, 4, 2, 1]) == "ca\N{REPLACEMENT CHARACTER}"
    assert (tokenizer.size, tokenizer.start, tokenizer.unknown) == (6, 0, 1)


def test_bytes_are_their_own_ids() -> None:
    tokenizer = ByteTokenizer()

    assert tokenizer.encode("é\n") == [0xC3, 0xA9, 10]
    assert tokenizer.decode([256, 0xC3, 65]) == "\N{REPLACEMENT CHARACTER}A"
    assert (tokenizer.size, tokenizer.start, tokenizer.unknown) == (257, 256, None)


def test_words_are_numbered_by_frequency_then_spelling() -> None:
    tokenizer = WordTokenizer.fit(["to be or not to be, that"])

    assert tokenizer.words == [" ", "be", "to", ",", "not", "or", "that"]
    assert tokenizer.decode(tokenizer.encode("to see, or not")) == "to <unknown>, or not"


def test_rare_words_are_left_out() -> None:
    tokenizer = WordTokenizer.fit(["a a a b b c"], min_count=2)
    small = WordTokenizer.fit(["a a a b b c"], max_size=2)

    assert tokenizer.words == [" ", "a", "b"]
    assert small.words == [" ", "a"]


def test_texts_of_their_own_do_not_grow_together() -> None:
    tokenizer = WordTokenizer.fit(["one", "two"])

    assert tokenizer.words == ["one", "two"]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("texts", [[], [""], [iter([""])]])
def test_an_empty_text_trains_nothing(unit: str, texts: list[Any]) -> None:
    with pytest.raises(ValueError, match="empty text"):
        TOKENIZERS[unit].fit(texts)


@pytest.mark.parametrize("tokenizer", [CharacterTokenizer("ab"), ByteTokenizer(), WordTokenizer(["ab"])])
def test_ids_out_of_range_are_refused(tokenizer: Tokenizer) -> None:
    for index in (-1, tokenizer.size):
        with pytest.raises(ValueError, match=f"id {index} is outside this tokenizer's 0 … {tokenizer.size - 1}"):
            tokenizer.decode([index])


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"_target_": "unrolled.CharacterTokenizer"}, "missing a required argument: 'characters'"),
        ({"_target_": "unrolled.ByteTokenizer", "size": 3}, "takes no 'size'"),
        ({"_target_": "unrolled.ByteTokenizer", "max_length": 0}, "max_length=0: expected 1 or more"),
        ({"_target_": "unrolled.CharacterTokenizer", "characters": "aba"}, "'a' twice"),
        ({"_target_": "unrolled.WordTokenizer", "words": []}, "at least one"),
    ],
)
def test_a_description_that_no_tokenizer_wrote_is_refused(plain: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(plain)


@pytest.mark.parametrize("bounds", [{"min_count": 0}, {"max_size": 0}])
def test_bounds_below_one_are_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        WordTokenizer.fit(["a"], **bounds)


def test_no_word_frequent_enough_is_refused() -> None:
    with pytest.raises(ValueError, match="min_count=3 times; the most frequent occurs 2 times"):
        WordTokenizer.fit(["a a"], min_count=3)


def test_codecs_need_no_torch() -> None:
    code = "import sys, unrolled.processing.text.tokenizers; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("tokenizer", [WordTokenizer(["a"]), SentenceTokenizer(["a"]), SpacedTokenizer(["a"])])
@pytest.mark.parametrize("symbol", ["a", " "])
def test_a_long_word_is_copied_once(tokenizer: Tokenizer, symbol: str) -> None:
    pieces = [symbol * 500] * 40_000 + [" a a"]

    began = time.process_time()
    ids = [index for some in tokenizer.encode_pieces(pieces) for index in some]

    assert ids[-1] == 2
    assert time.process_time() - began < 10  # joined anew with each piece, it takes minutes
