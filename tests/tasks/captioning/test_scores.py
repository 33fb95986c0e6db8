"""Scores of captions: those of coco-caption's own Python, to the sixth digit."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from unrolled.training.tasks.seq2seq import GeneratedText
from unrolled_tasks.captioning.scores import CiderD, bleu, by_word, corpus_scores, rouge_l, tokens

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("golden.json").read_text())  # see make_golden.py


def written(texts: list[str], references: list[list[str]]) -> list[GeneratedText]:
    pairs = enumerate(zip(texts, references, strict=True))
    return [GeneratedText(number, "", text, tuple(several), "") for number, (text, several) in pairs]


GOLDEN_WRITTEN = written(GOLDEN["texts"], GOLDEN["references"])


def test_cider_d_is_that_of_the_public_reference() -> None:
    references = [[text.split() for text in several] for several in GOLDEN["references"]]
    scorer = CiderD(references)

    found = [scorer.score(text.split(), several) for text, several in zip(GOLDEN["texts"], references, strict=True)]

    assert max(GOLDEN["cider_d"]) > 5
    assert sum(0 < score < 9 for score in GOLDEN["cider_d"]) > 20
    # The reference gives numbers of the same scale: 10 is the most.
    assert found == pytest.approx(GOLDEN["cider_d"], rel=0, abs=1e-6)
    assert corpus_scores(GOLDEN_WRITTEN)["cider_d"] == pytest.approx(GOLDEN["cider_d_mean"], rel=0, abs=1e-6)


def test_rouge_l_is_that_of_the_public_reference() -> None:
    found = [
        rouge_l(text.split(), [reference.split() for reference in several])
        for text, several in zip(GOLDEN["texts"], GOLDEN["references"], strict=True)
    ]

    assert found == pytest.approx(GOLDEN["rouge_l"], rel=0, abs=1e-6)
    assert corpus_scores(GOLDEN_WRITTEN)["rouge_l"] == pytest.approx(100 * GOLDEN["rouge_l_mean"], rel=0, abs=1e-6)


def test_bleu_is_that_of_the_public_reference() -> None:
    numbers = corpus_scores(GOLDEN_WRITTEN)

    found = [numbers[f"bleu{order}"] / 100 for order in (1, 2, 3, 4)]

    assert found == pytest.approx(GOLDEN["bleu"], rel=0, abs=1e-6)


def test_the_brevity_penalty_is_all_that_parts_the_two_bleus() -> None:
    numbers = bleu([["a", "man"]], [[tokens("a man in the snow"), tokens("the man sits in grass here")]])

    assert numbers["bleu1_unpenalised"] == pytest.approx(100)
    assert numbers["bleu1"] == pytest.approx(100 * math.exp(1 - 5 / 2))


def test_a_caption_that_says_nothing_scores_nothing() -> None:
    numbers = corpus_scores(written(["", "a dog"], [["a dog"], ["a dog", "dogs"]]))

    assert numbers["cider_d"] < 10
    assert numbers["exact"] == 50
    assert rouge_l([], [["a"]]) == 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man's t-shirt, red.", ["a", "man", "'s", "t-shirt", "red"]),
        ("Zwei Männer – im Grünen!", ["zwei", "männer", "im", "grünen"]),
        ("  ", []),
    ],
)
def test_tokens_are_words_without_signs(text: str, words: list[str]) -> None:
    assert tokens(text) == words


def test_words_are_counted_once_for_each_image() -> None:
    rows = by_word(written(["a dog a dog", "a cat"], [["a dog", "dog"], ["a dog"]]))

    assert rows == [("a", 2, 100.0, 100.0), ("dog", 2, 50.0, 100.0)]
