"""Classifier and regressor of texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import cross_val_score

import unrolled
from unrolled.deployment.classification import classify
from unrolled.training.estimators import RecurrentClassifier, RecurrentRegressor

SMALL: dict[str, Any] = {"hidden_size": 8, "max_epochs": 20, "random_state": 0, "verbose": False}
PRAISE, BLAME = ("lovely", "great", "charming"), ("dull", "awful", "poor")


def reviews(number: int = 80, seed: int = 0) -> tuple[list[str], list[str]]:
    """Sentences whose sense depends on two words: "not great" is bad."""
    draw = np.random.default_rng(seed)
    texts, labels = list[str](), list[str]()
    for index in range(number):
        word, denied = draw.choice(PRAISE if index % 2 else BLAME), index % 4 > 1
        texts.append(f"The {draw.choice(['film', 'book'])} is {'not ' * denied}{word}")
        labels.append("good" if (index % 2 == 1) != denied else "bad")
    return texts, labels


@pytest.fixture(scope="module")
def fitted() -> RecurrentClassifier:
    return unrolled.fit(*reviews(), **SMALL)


def test_a_classifier_of_texts_learns_what_no_single_word_says(fitted: RecurrentClassifier) -> None:
    texts, labels = reviews(seed=1)

    assert fitted.score(texts, labels) > 0.95
    assert fitted.predict(["THE  FILM IS\nnot GREAT"]) == ["bad"]  # case and white space do not matter
    np.testing.assert_allclose(fitted.predict_proba(texts).sum(1), 1)
    expected = fitted.predict_proba(texts)
    for given in (np.array(texts), np.array(texts, dtype=object), pd.Series(texts), tuple(texts)):
        np.testing.assert_array_equal(fitted.predict_proba(given), expected)


def test_a_saved_classifier_of_texts_is_the_same(fitted: RecurrentClassifier, tmp_path: Path) -> None:
    texts, _ = reviews(20, seed=1)
    fitted.save(tmp_path / "reviews.ckpt")
    loaded = RecurrentClassifier.load(tmp_path / "reviews.ckpt")

    np.testing.assert_array_equal(loaded.predict_proba(texts), fitted.predict_proba(texts))
    found = classify(unrolled.load_bundle(tmp_path / "reviews.ckpt"), texts)
    assert [each.label for each in found] == fitted.predict(texts).tolist()
    with pytest.raises(ValueError, match="RecurrentRegressor is of another task"):
        RecurrentRegressor.load(tmp_path / "reviews.ckpt")


def test_a_regressor_of_texts_and_cross_validation() -> None:
    texts, _ = reviews()
    numbers = np.array([2.5 if "not" in text else 0.5 for text in texts])
    model = RecurrentRegressor(**{**SMALL, "max_epochs": 15}, batch_size=8)

    assert (cross_val_score(model, texts, numbers, cv=2) > 0.9).all()


def test_what_is_no_text_is_refused_by_place(fitted: RecurrentClassifier) -> None:
    with pytest.raises(ValueError, match=r"X\[1\] is an empty text; remove it and its target"):
        RecurrentClassifier().fit(["a text", "  "], [0, 1])
    with pytest.raises(ValueError, match=r"X\[1\] is None, and X\[0\] is a text: all must be texts"):
        fitted.predict(["a text", None])
    with pytest.raises(ValueError, match="X has numbers, but this RecurrentClassifier was trained on texts"):
        fitted.predict([np.zeros(3)])
    numbers = RecurrentClassifier(**{**SMALL, "max_epochs": 1}).fit(np.random.default_rng(0).random((8, 4)), [0, 1] * 4)
    with pytest.raises(ValueError, match="X has texts, but this RecurrentClassifier was trained on numbers"):
        numbers.predict(["a text"])
