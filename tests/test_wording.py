"""One of a thing is one thing."""

import re
from pathlib import Path

import pytest

import unrolled
from unrolled.wording import article, counted

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (counted(1, "thread"), "1 thread"),
        (counted(0, "thread"), "0 threads"),
        (counted(2, "process", "processes"), "2 processes"),
        (counted(1, "process", "processes"), "1 process"),
        (counted(12345, "step"), "12,345 steps"),
    ],
)
def test_only_one_is_singular(said: str, expected: str) -> None:
    assert said == expected


def test_every_name_of_the_package_gets_the_article_that_is_spoken() -> None:
    with_an = {name for name in unrolled.__all__ if article(name).startswith("an ")}

    assert {"EncoderDecoder", "ElmanCell", "LSTMCell", "AudioFeatures", "IndRNNCell", "ImageEncoder"} <= with_an
    assert not {"GRUCell", "UnigramTokenizer", "RecurrentEncoder", "ByteTokenizer", "Cell", "JordanCell"} & with_an


SOURCES = [path for folder in ("src", "tasks") for path in (ROOT / folder).rglob("*.py") if path.name != "wording.py"]


def test_no_sentence_puts_an_article_before_a_name_that_it_does_not_know() -> None:
    """`f"a {type(x).__name__}"` says "a EncoderDecoder"."""
    wrong = [
        f"{path.name}: {found[0]}"
        for path in SOURCES
        for found in re.finditer(r"\b[Aa]n? \{[^{}]*(__name__|_kind\()[^{}]*\}", path.read_text())
    ]

    assert len(SOURCES) > 100
    assert not wrong
