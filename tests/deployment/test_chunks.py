"""Long texts in pieces: nothing is lost, no piece is too long, and sentences stay whole where they can."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.deployment.chunks import pieces
from unrolled.deployment.progress import Progress
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.subword import BPETokenizer
from unrolled.processing.text.tokenizers import ByteTokenizer, CharacterTokenizer

ALPHABET = "abc .,!?。，\n\t”é"
TOKENIZERS: list[Tokenizer] = [CharacterTokenizer(ALPHABET), ByteTokenizer(), BPETokenizer(list("▁abc.,!?é"), [])]


def shown(tokenizer: Tokenizer, text: str, most: int) -> list[str]:
    return [tokenizer.decode(piece.ids) for piece in pieces(text, tokenizer.encode, most)]


@settings(derandomize=True, deadline=None)
@given(st.text(ALPHABET, max_size=80), st.integers(1, 40), st.sampled_from(TOKENIZERS))
def test_pieces_are_short_enough_and_make_up_the_text(text: str, most: int, tokenizer: Tokenizer) -> None:
    found = pieces(text, tokenizer.encode, most)

    whole = len(tokenizer.encode(text))
    assert (len(found) == 1) == (whole <= most or len(text) <= 1) or not text.strip()
    for piece in found:
        assert len(piece.ids) <= most or len(tokenizer.decode(piece.ids)) <= 1 or len(found) == 1
    if isinstance(tokenizer, CharacterTokenizer):
        joined = "".join(tokenizer.decode(piece.ids) + " " * piece.blank for piece in found)
        assert joined.split() == text.split()


def test_a_text_is_cut_where_it_hurts_least() -> None:
    tokenizer = CharacterTokenizer(
        "".join(sorted(set("One two. “Three four!” Five, six; seven eight nine ten.三。四")))
    )

    assert shown(tokenizer, "One two. “Three four!” Five.", 24) == ["One two. “Three four!”", "Five."]
    assert shown(tokenizer, "One two. “Three four!” Five.", 14) == ["One two.", "“Three four!”", "Five."]
    assert shown(tokenizer, "Five, six; seven eight nine.", 12) == ["Five, six;", "seven eight", "nine."]
    assert shown(tokenizer, "三三。四四。三三", 4) == ["三三。", "四四。", "三三"]
    assert shown(tokenizer, "eeeeeeeeee", 4) == ["ee", "eee", "ee", "eee"]
    assert [piece.blank for piece in pieces("三三。四四。 三三", tokenizer.encode, 4)] == [False, True, False]


@pytest.mark.parametrize("text", ["ab. " * 250_000, "a" * 1_000_000, "a b " * 250_000, "." * 1_000_000])
def test_cutting_takes_time_by_the_length(text: str) -> None:
    began = time.process_time()
    found = pieces(text, CharacterTokenizer("ab. ").encode, 100)

    assert len(found) >= 9_000
    assert time.process_time() - began < 10


def test_a_command_says_how_far_it_is_while_it_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("translate", first=0.05) as progress:
        time.sleep(0.2)
        assert capsys.readouterr().err == ""  # it waits for input
        progress.counted("lines are translated", 3, 2000)
        time.sleep(0.4)
        lines = capsys.readouterr().err.splitlines()
        assert 1 <= len(lines) <= 4  # ever more rarely
        assert lines[0] == "unrolled translate: 3 of 2,000 lines are translated, 0 s"
        progress.counted("lines are translated", 2000, 2000)
        time.sleep(0.3)
    assert "2,000 of" not in capsys.readouterr().err
