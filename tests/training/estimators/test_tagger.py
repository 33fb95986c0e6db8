"""The tagger: a label for each step of series, or for each word of sentences."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unrolled
from unrolled.checkpoint import load_bundle
from unrolled.deployment.tagging import tag
from unrolled.training.estimators import RecurrentTagger

SMALL: dict[str, Any] = {"hidden_size": 8, "max_epochs": 12, "random_state": 0, "learning_rate": 0.03}


def walks(number: int = 40, seed: int = 0) -> tuple[list[Any], list[Any]]:
    """Random numbers (5 to 11 steps), each with the label of its sign: 1 or 2."""
    draw = np.random.default_rng(seed)
    series = [draw.normal(size=(steps, 1)) for steps in draw.integers(5, 12, number)]
    return series, [np.where(each[:, 0] > 0, 2, 1) for each in series]


@pytest.fixture(scope="module")
def fitted() -> RecurrentTagger:
    return RecurrentTagger(**SMALL).fit(*walks())


def test_it_labels_each_step(fitted: RecurrentTagger) -> None:
    x, y = walks(seed=1)
    chances = fitted.predict_proba(x)

    assert fitted.score(x, y) > 0.9
    assert fitted.classes_.tolist() == [1, 2]
    assert [each.shape for each in chances] == [(len(each), 2) for each in x]
    assert all(each.dtype == np.int64 for each in fitted.predict(x))


def test_a_saved_tagger_predicts_the_same(fitted: RecurrentTagger, tmp_path: Path) -> None:
    x, _ = walks(seed=1)
    fitted.save(tmp_path / "walks.ckpt")
    loaded = RecurrentTagger.load(tmp_path / "walks.ckpt")

    for other in (loaded, pickle.loads(pickle.dumps(fitted))):
        for one, same in zip(other.predict_proba(x), fitted.predict_proba(x), strict=True):
            np.testing.assert_array_equal(one, same)


def test_words_are_tagged_as_the_command_tags_them(tmp_path: Path) -> None:
    sentences = [["the", "cat", "runs"], ["a", "dog", "sleeps"], ["the", "dog", "runs"], ["a", "cat", "sleeps"]] * 6
    tags = [["det", "noun", "verb"]] * 24
    model = unrolled.fit(sentences, tags, verbose=False, **SMALL)
    model.save(tmp_path / "words.ckpt")
    found = next(tag(load_bundle(tmp_path / "words.ckpt"), [["a", "dog", "runs"]]))

    assert isinstance(model, RecurrentTagger)
    assert model.score(sentences, tags) > 0.9
    assert model.predict([["a", "dog", "runs"]])[0].tolist() == [word.tag for word in found]
    with pytest.raises(ValueError, match="X has series, but training had the other kind"):
        model.predict([np.zeros((3, 1))])


def test_fit_chooses_a_tagger_for_sequences_of_labels() -> None:
    x = np.stack([each[:5] for each in walks(12)[0]])
    y = np.where(x[..., 0] > 0, 1, 0)

    for labels in (y, torch.from_numpy(y), y.tolist(), list(y)):
        assert isinstance(unrolled.fit(x, labels, verbose=False, **{**SMALL, "max_epochs": 1}), RecurrentTagger)


X, Y = walks(8)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, [*Y[:7], Y[7][:-1]], r"y\[7\] has the shape \(\d+,\), but X\[7\] has \d+ steps: give one label for each"),
        (X, Y[:7], "X has 8 sequences, and y 7 targets"),
        (X, [np.ones(len(each), dtype=int) for each in X], "all steps have the label '1': there must be two or more"),
        (X, [each / 2 for each in Y], r"y\[0\] has numbers with fractions"),
        ([["a", "b"], []], [["x", "y"], []], r"X\[1\] is \[\]: expected one word or more"),
        (X, None, "requires y to be passed"),
    ],
)
def test_data_that_cannot_be_used_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentTagger(**SMALL).fit(x, y)
