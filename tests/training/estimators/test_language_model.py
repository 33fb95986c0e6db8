"""The language model: probabilities of symbols, texts, persistence."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unrolled.checkpoint import load_bundle
from unrolled.deployment.sampling import sample_text
from unrolled.training.estimators import RecurrentLanguageModel

SMALL: dict[str, Any] = {"hidden_size": 16, "window": 16, "max_epochs": 6, "random_state": 0, "learning_rate": 0.02}
TEXT = "abc" * 400


@pytest.fixture(scope="module")
def fitted() -> RecurrentLanguageModel:
    return RecurrentLanguageModel(**SMALL).fit(TEXT)


def test_it_learns_what_comes_next(fitted: RecurrentLanguageModel) -> None:
    chances = fitted.predict_proba(["ab", "abcab"])

    assert fitted.predict(["ab", "abca", "abc"]) == ["c", "b", "a"]
    np.testing.assert_allclose(chances.sum(1), 1, rtol=1e-5)
    assert chances[0, fitted.symbols_.index("c")] > 0.8
    assert fitted.sample("ab", length=4, temperature=0) == "abcabc"
    assert fitted.sample("a", length=20, random_state=1) == fitted.sample("a", length=20, random_state=1)


def test_the_score_is_the_mean_logarithm_of_the_probabilities(fitted: RecurrentLanguageModel) -> None:
    text = "abca"
    chances = fitted.predict_proba([text[:end] for end in range(len(text))])
    logs = [math.log(row[fitted.symbols_.index(symbol)]) for row, symbol in zip(chances, text, strict=True)]

    assert fitted.score(text) == pytest.approx(sum(logs) / len(text), abs=1e-5)
    assert fitted.score(["abc", "ab"]) == pytest.approx((3 * fitted.score("abc") + 2 * fitted.score("ab")) / 5)


def test_a_saved_language_model_is_the_same(fitted: RecurrentLanguageModel, tmp_path: Path) -> None:
    fitted.save(tmp_path / "abc.ckpt")
    loaded = RecurrentLanguageModel.load(tmp_path / "abc.ckpt")

    np.testing.assert_array_equal(loaded.predict_proba(["ab"]), fitted.predict_proba(["ab"]))
    assert loaded.get_params() == fitted.get_params()
    assert sample_text(load_bundle(tmp_path / "abc.ckpt"), "ab", length=4, temperature=0) == "abcabc"


@pytest.mark.parametrize(
    ("x", "parameters", "message"),
    [
        ("abc", {}, "X has 4 characters, of which 3 are for training: too few for window=16"),
        (["abc", 7], {}, r"X is not texts: X\[1\] is 7"),
        ([], {}, "X is empty"),
        (TEXT, {"window": 0}, "window=0 must be a whole number"),
    ],
)
def test_texts_that_cannot_be_used_are_refused(x: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentLanguageModel(**{**SMALL, **parameters}).fit(x)


def test_unknown_symbols_are_refused(fitted: RecurrentLanguageModel) -> None:
    with pytest.raises(ValueError, match="a text has symbols that training data did not contain: 'x'"):
        fitted.score("abx")
