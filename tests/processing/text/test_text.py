"""Codecs: text comes back as it was, ids are stable, and what cannot be read is refused."""

import json
import re
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.processing.text.base import Codec
from unrolled.processing.text.description import codec_from_dict
from unrolled.processing.text.spaced import SpacedTokenizer
from unrolled.processing.text.tokenizers import (
    CODECS,
    ByteTokenizer,
    CharacterTokenizer,
    SentenceTokenizer,
    WordTokenizer,
)

law = settings(derandomize=True, deadline=None)
UNITS = sorted(CODECS)


@law
@given(st.text(min_size=1), st.sampled_from(UNITS))
def test_decoding_gives_the_text_back(text: str, unit: str) -> None:
    codec = CODECS[unit].train([text])

    ids = codec.encode(text)

    assert codec.decode(ids) == text
    assert all(0 <= index < codec.size for index in ids)
    assert codec.start not in ids
    assert codec.unknown not in ids


@law
@given(st.text(alphabet="ab é\n,'", min_size=1), st.lists(st.integers(0, 20)), st.sampled_from(UNITS))
def test_a_text_in_pieces_is_the_whole_text(text: str, cuts: list[int], unit: str) -> None:
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:stop] for start, stop in zip(borders, [*borders[1:], None], strict=True)]

    codec = CODECS[unit].train([iter(pieces)])

    assert codec.to_dict() == CODECS[unit].train([text]).to_dict()
    assert [index for ids in codec.encode_pieces(pieces) for index in ids] == codec.encode(text)


@law
@given(
    st.text(alphabet="ab \u2003\n,'-"),
    st.lists(st.integers(0, 20)),
    st.sampled_from([SentenceTokenizer, SpacedTokenizer]),
)
def test_words_in_pieces_are_those_of_the_whole(text: str, cuts: list[int], kind: type[Codec]) -> None:
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:stop] for start, stop in zip(borders, [*borders[1:], None], strict=True)]
    codec = kind(["a", "ab", "b", "ba", "a'b"])

    words = text.split() if kind is SpacedTokenizer else re.findall(r"\w+(?:['’\-]\w+)*|['’]\w+|[^\w\s]", text)
    expected = [codec.words.index(word) + 2 if word in codec.words else 1 for word in words]
    assert [index for ids in codec.encode_pieces(pieces) for index in ids] == expected
    assert codec.encode(text) == expected


@law
@given(st.text(min_size=1), st.sampled_from(UNITS))
def test_plain_data_hold_the_whole_codec(text: str, unit: str) -> None:
    codec = CODECS[unit].train([text])

    again = codec_from_dict(json.loads(json.dumps(codec.to_dict())))

    assert type(again) is type(codec)
    assert again.encode(text) == codec.encode(text)
    assert (again.size, again.start, again.unknown) == (codec.size, codec.start, codec.unknown)


def test_characters_are_numbered_in_order_after_start_and_unknown() -> None:
    codec = CharacterTokenizer.train(["banana", "c"])

    assert codec.characters == "abcn"
    assert codec.encode("cab?") == [4, 2, 3, 1]
    assert codec.decode([0, 4, 2, 1]) == "ca\N{REPLACEMENT CHARACTER}"
    assert (codec.size, codec.start, codec.unknown) == (6, 0, 1)


def test_bytes_are_their_own_ids() -> None:
    codec = ByteTokenizer()

    assert codec.encode("é\n") == [0xC3, 0xA9, 10]
    assert codec.decode([256, 0xC3, 65]) == "\N{REPLACEMENT CHARACTER}A"
    assert (codec.size, codec.start, codec.unknown) == (257, 256, None)


def test_words_are_numbered_by_frequency_then_spelling() -> None:
    codec = WordTokenizer.train(["to be or not to be, that"])

    assert codec.words == [" ", "be", "to", ",", "not", "or", "that"]
    assert codec.decode(codec.encode("to see, or not")) == "to <unknown>, or not"


def test_rare_words_are_left_out() -> None:
    codec = WordTokenizer.train(["a a a b b c"], min_count=2)
    small = WordTokenizer.train(["a a a b b c"], max_size=2)

    assert codec.words == [" ", "a", "b"]
    assert small.words == [" ", "a"]


def test_texts_of_their_own_do_not_grow_together() -> None:
    codec = WordTokenizer.train(["one", "two"])

    assert codec.words == ["one", "two"]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("texts", [[], [""], [iter([""])]])
def test_an_empty_text_trains_nothing(unit: str, texts: list[Any]) -> None:
    with pytest.raises(ValueError, match="empty text"):
        CODECS[unit].train(texts)


@pytest.mark.parametrize("codec", [CharacterTokenizer("ab"), ByteTokenizer(), WordTokenizer(["ab"])])
def test_ids_out_of_range_are_refused(codec: Codec) -> None:
    for index in (-1, codec.size):
        with pytest.raises(ValueError, match=f"id {index} is outside this codec's 0 … {codec.size - 1}"):
            codec.decode([index])


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({}, "got None"),
        ({"_target_": "os.system"}, "one of unrolled.CharacterTokenizer"),
        ({"_target_": "unrolled.Codec"}, "did you mean"),
        (
            {"_target_": "unrolled.CharacterCode", "characters": "a"},
            "did you mean unrolled.CharacterTokenizer",
        ),
        ({"_target_": "unrolled.CharacterTokenizer"}, "takes .'characters'., got nothing"),
        ({"_target_": "unrolled.ByteTokenizer", "size": 3}, "takes nothing, got .'size'."),
        ({"_target_": "unrolled.CharacterTokenizer", "characters": "aba"}, "'a' twice"),
        ({"_target_": "unrolled.WordTokenizer", "words": []}, "at least one"),
    ],
)
def test_a_dict_that_no_codec_wrote_is_refused(plain: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        codec_from_dict(plain)


@pytest.mark.parametrize("bounds", [{"min_count": 0}, {"max_size": 0}])
def test_bounds_below_one_are_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        WordTokenizer.train(["a"], **bounds)


def test_no_word_frequent_enough_is_refused() -> None:
    with pytest.raises(ValueError, match="min_count=3 times; the most frequent occurs 2 times"):
        WordTokenizer.train(["a a"], min_count=3)


def test_codecs_need_no_torch() -> None:
    code = "import sys, unrolled.processing.text.tokenizers; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("codec", [WordTokenizer(["a"]), SentenceTokenizer(["a"]), SpacedTokenizer(["a"])])
@pytest.mark.parametrize("symbol", ["a", " "])
def test_a_long_word_is_copied_once(codec: Codec, symbol: str) -> None:
    pieces = [symbol * 500] * 40_000 + [" a a"]

    began = time.process_time()
    ids = [index for some in codec.encode_pieces(pieces) for index in some]

    assert ids[-1] == 2
    assert time.process_time() - began < 10  # joined anew with each piece, it takes minutes
