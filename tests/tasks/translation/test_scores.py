"""Scores are the field's own, and groups hold what they say."""

import logging

import pytest
import sacrebleu
from sacremoses import MosesTokenizer

from unrolled.training.tasks.seq2seq import GeneratedText
from unrolled_tasks.translation.scores import by_kind, by_length, corpus_scores, moses_language

TEXTS = ["Ein Mann trägt ein T-Shirt, rot.", "Zwei Frauen (eine alt) lachen!", "„Der Hund“ schläft z.B. im Garten…"]
REFERENCES = [
    "Ein Mann trägt ein rotes T-Shirt.",
    "zwei Frauen (eine alt) lachen!",
    '"Der Hund" schläft z.B. im Garten...',
]


def written(text: str, reference: str, source: str = "a b c", kind: str = "") -> GeneratedText:
    return GeneratedText(0, source, text, (reference,), kind)


@pytest.fixture
def pairs() -> list[GeneratedText]:
    return [written(text, reference) for text, reference in zip(TEXTS, REFERENCES, strict=True)]


def test_scores_are_sacrebleus(pairs: list[GeneratedText]) -> None:
    numbers, signatures = corpus_scores(pairs, "de")

    assert numbers["bleu"] == sacrebleu.corpus_bleu(TEXTS, [REFERENCES]).score
    assert numbers["bleu_lowercase"] == sacrebleu.corpus_bleu(TEXTS, [REFERENCES], lowercase=True).score
    assert numbers["chrf"] == sacrebleu.corpus_chrf(TEXTS, [REFERENCES]).score
    assert numbers["bleu"] < numbers["bleu_lowercase"]
    assert signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")


@pytest.mark.parametrize(
    ("name", "code"), [("de", "de"), ("de_CH", "de"), ("pt-BR", "pt"), ("german", "de"), ("French", "fr"), ("ja", "ja")]
)
def test_a_language_goes_by_its_code_or_its_name(name: str, code: str, caplog: pytest.LogCaptureFixture) -> None:
    moses_language.cache_clear()
    assert moses_language(name) == code
    assert caplog.text == ""


def test_another_word_is_no_language_and_that_is_logged_once(
    pairs: list[GeneratedText], caplog: pytest.LogCaptureFixture
) -> None:
    moses_language.cache_clear()
    with caplog.at_level(logging.WARNING):
        numbers, signatures = corpus_scores(pairs, "target")
        assert corpus_scores(pairs, "target") == (numbers, signatures)

    assert caplog.text.count("have no language 'target'") == 1
    assert "task.language=" in caplog.text
    expected, said = corpus_scores(pairs, "en")
    assert numbers["bleu_moses"] == expected["bleu_moses"]
    assert signatures["bleu_moses"] == said["bleu_moses"]  # a signature names the rules that were used


def test_the_score_of_older_papers_is_that_on_lower_cased_moses_tokens(pairs: list[GeneratedText]) -> None:
    tokenizer = MosesTokenizer(lang="de")
    # The normalizer's whole effect on these texts, by hand.
    plain = [text.replace("„", '"').replace("“", '"').replace("…", "...") for text in TEXTS]
    tokens = [
        [tokenizer.tokenize(text.lower(), return_str=True, escape=False) for text in column]
        for column in (plain, REFERENCES)
    ]

    numbers, signatures = corpus_scores(pairs, "de_AT")

    expected = sacrebleu.corpus_bleu(tokens[0], [tokens[1]], tokenize="none", force=True).score
    assert numbers["bleu_moses"] == pytest.approx(expected, abs=1e-9)
    assert "t-shirt ," in tokens[0][0]  # 13a would split it
    assert numbers["bleu_moses"] > numbers["bleu_lowercase"]
    assert "case:lc" in signatures["bleu_moses"]
    assert "tok:moses-de|" in signatures["bleu_moses"]
    assert "|sacremoses:" in signatures["bleu_moses"]


def test_words_are_cut_as_the_language_cuts_them() -> None:
    texts = [written("je vois l'ami dans la rue", "je vois un ami dans la rue")]

    french, english = (corpus_scores(texts, code)[0]["bleu_moses"] for code in ("fr_CA", "en"))

    assert french > english  # "l' ami" shares a word with "un ami", "l 'ami" does not


def test_nothing_written_has_no_score() -> None:
    assert corpus_scores([], "de") == ({}, {})


def test_classes_of_length_hold_their_sentences_and_are_in_order() -> None:
    lengths = [1, 5, 6, 10, 11, 40, 41, 400]
    items = [written("w " * n, "w " * n, source="s " * n) for n in lengths]

    rows = by_length(items)

    assert [(name, count) for name, count, _ in rows] == [
        ("1–5", 2),
        ("6–10", 2),
        ("11–15", 1),
        ("31–40", 1),
        ("over 40", 2),
    ]
    assert rows[-1][2] == pytest.approx(100)


def test_kinds_are_scored_apart() -> None:
    items = [written("7. Juli", "7. Juli", kind="date"), written("8", "9", kind="number"), written("x", "y")]

    assert by_kind(items) == [("date", 1, pytest.approx(100), 100.0), ("number", 1, 0.0, 0.0)]
