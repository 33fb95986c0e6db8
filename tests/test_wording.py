"""One of a thing is one thing."""

import pytest

import unrolled
from unrolled.wording import article, counted


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
    assert not {"GRUCell", "UnigramCodec", "RecurrentDecoder", "ByteCodec", "Cell", "JordanCell"} & with_an
