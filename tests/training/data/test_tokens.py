"""Encoded text on disk: whole or not at all, and read without being loaded."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.tokenizers import ByteTokenizer, CharacterTokenizer, WordTokenizer
from unrolled.training.data.tokens import Tokens, tokenizer_hash, write_tokens


def test_documents_are_read_back_in_ranges(tmp_path: Path) -> None:
    tokenizer = CharacterTokenizer("abc")

    written = write_tokens(tmp_path / "text", tokenizer, ["abc", "", iter(["ca", "b?"])])
    tokens = Tokens(tmp_path / "text")

    assert tokens.documents.tolist() == written.documents.tolist() == [0, 3, 3, 7]
    assert tokens.lengths.tolist() == [3, 0, 4]
    assert len(tokens) == 7
    assert tokens.read(2, 5).tolist() == [4, 4, 2]
    assert tokens.gather(np.array([[0, 6], [1, 1]])).tolist() == [[2, 1], [3, 3]]
    assert tokens.read(0, 7).dtype == torch.int64
    assert tokens.unknown == 1
    assert tokens.tokenizer_hash == tokenizer_hash(tokenizer)


@pytest.mark.parametrize(
    ("tokenizer", "itemsize"),
    [
        (CharacterTokenizer("".join(map(chr, range(1000, 1254)))), 1),
        (CharacterTokenizer("".join(map(chr, range(1000, 1255)))), 2),
        (ByteTokenizer(), 2),
        (WordTokenizer([str(number) for number in range(65_600)]), 4),
    ],
)
def test_ids_take_no_more_room_than_the_vocabulary_needs(tmp_path: Path, tokenizer: Tokenizer, itemsize: int) -> None:
    text = tokenizer.decode([tokenizer.size - 1]) if not isinstance(tokenizer, ByteTokenizer) else "é"

    tokens = write_tokens(tmp_path / "text", tokenizer, [text])

    assert (tmp_path / "text").stat().st_size == itemsize * len(tokens)
    assert tokenizer.decode(tokens.read(0, len(tokens)).tolist()) == text


def test_an_empty_text_can_be_read(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "text", ByteTokenizer(), [""])

    assert len(tokens) == 0
    assert tokens.read(0, 3).shape == (0,)


def test_what_was_not_written_to_the_end_is_not_there(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield "abc"
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        write_tokens(tmp_path / "text", ByteTokenizer(), broken())

    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        Tokens(tmp_path / "text")


def test_a_failed_writing_leaves_the_older_text_as_it_was(tmp_path: Path) -> None:
    write_tokens(tmp_path / "text", ByteTokenizer(), ["older"])

    with pytest.raises(ValueError, match="surrogates"):
        write_tokens(tmp_path / "text", ByteTokenizer(), ["newer", "\ud800"])

    assert ByteTokenizer().decode(Tokens(tmp_path / "text").read(0, 9).tolist()) == "older"


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_tokens(tmp_path / "text", ByteTokenizer(), ["abc"])
    about = json.loads((tmp_path / "text.json").read_text())
    (tmp_path / "text.json").write_text(json.dumps({**about, "size": 4}))

    with pytest.raises(ValueError, match="encode again"):
        Tokens(tmp_path / "text")


def test_codecs_that_encode_differently_have_different_hashes() -> None:
    codecs = [CharacterTokenizer("ab"), CharacterTokenizer("ba"), WordTokenizer(["ab"]), ByteTokenizer()]

    assert len({tokenizer_hash(tokenizer) for tokenizer in codecs}) == 4
    assert tokenizer_hash(CharacterTokenizer("ab")) == tokenizer_hash(codecs[0])
