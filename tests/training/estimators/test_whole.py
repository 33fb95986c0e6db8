"""Classifier and regressor of whole sequences, as a notebook and scikit-learn's tools use them."""

import copy
import json
import os
import pickle
import random
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import unrolled
from unrolled.checkpoint import load_bundle
from unrolled.deployment.classification import classify
from unrolled.deployment.command import main
from unrolled.training.estimators import RecurrentClassifier, RecurrentRegressor

SMALL: dict[str, Any] = {"model": "gru", "hidden_size": 8, "random_state": 0, "max_epochs": 12, "learning_rate": 0.02}


def waves(number: int = 48, seed: int = 0) -> tuple[list[Any], np.ndarray]:
    """Noisy waves (8 to 15 steps, 2 features) that rise ("up") or fall ("down")."""
    draw = np.random.default_rng(seed)
    labels = np.array(["down", "up"])[np.arange(number) % 2]
    slopes = np.where(labels == "up", 1.0, -1.0)
    sequences = [
        np.stack([slope * np.linspace(-1, 1, steps), np.zeros(steps)], 1) + 0.1 * draw.standard_normal((steps, 2))
        for slope, steps in zip(slopes, draw.integers(8, 16, number), strict=True)
    ]
    return sequences, labels


@pytest.fixture(scope="module")
def fitted() -> RecurrentClassifier:
    return RecurrentClassifier(**SMALL).fit(*waves())


def test_a_classifier_learns_and_knows_what_scikit_learn_expects(fitted: RecurrentClassifier) -> None:
    x, y = waves(seed=1)
    chances = fitted.predict_proba(x)

    assert fitted.score(x, y) == 1.0
    assert fitted.classes_.tolist() == ["down", "up"]
    assert fitted.n_features_in_ == 2
    np.testing.assert_allclose(chances.sum(1), 1)
    assert (fitted.predict(x) == fitted.classes_[chances.argmax(1)]).all()
    best = min(fitted.history_, key=lambda epoch: epoch["validation_loss"])
    assert fitted.best_epoch_ == best["epoch"]
    assert fitted.n_iter_ == len(fitted.history_) <= 12


def test_the_same_sequences_in_any_form_have_the_same_predictions(fitted: RecurrentClassifier) -> None:
    x = [sequence[:8] for sequence in waves(seed=1)[0]]
    expected = fitted.predict_proba(x)
    padded = np.pad(np.stack(x), ((0, 0), (0, 3), (0, 0)), constant_values=np.nan)
    ragged = copy.deepcopy(fitted).set_params(padding=np.nan)

    for given in (np.stack(x), torch.from_numpy(np.stack(x)), np.stack(x).tolist(), [torch.from_numpy(s) for s in x]):
        np.testing.assert_array_equal(fitted.predict_proba(given), expected)
    np.testing.assert_array_equal(fitted.predict_proba([pd.DataFrame(s, columns=["a", "b"]) for s in x]), expected)
    np.testing.assert_array_equal(ragged.predict_proba(padded), expected)


def test_a_saved_estimator_predicts_the_same_to_the_last_bit(fitted: RecurrentClassifier, tmp_path: Path) -> None:
    x, _ = waves(seed=1)
    expected = fitted.predict_proba(x)
    fitted.save(tmp_path / "waves.ckpt")
    loaded = RecurrentClassifier.load(tmp_path / "waves.ckpt")

    for other in (loaded, pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        np.testing.assert_array_equal(other.predict_proba(x), expected)
        assert other.get_params() == fitted.get_params()
        assert other.history_ == fitted.history_
        assert other.classes_.dtype == fitted.classes_.dtype
    assert [found.label for found in classify(load_bundle(tmp_path / "waves.ckpt"), x)] == fitted.predict(x).tolist()
    with pytest.raises(ValueError, match="RecurrentRegressor is of another task: the checkpoint contains a Sequence"):
        RecurrentRegressor.load(tmp_path / "waves.ckpt")


def test_the_command_classifies_series_with_the_columns_of_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [pd.DataFrame(sequence, columns=["a x", "b"]) for sequence in waves(24)[0]]
    model = RecurrentClassifier(**{**SMALL, "max_epochs": 1}).fit(frames, waves(24)[1])
    model.save(tmp_path / "frames.ckpt")
    frames[0][["b", "a x"]].to_csv(tmp_path / "one.csv", index=False)  # in any order
    frames[0][["b"]].to_csv(tmp_path / "other.csv", index=False)
    command = ["classify", str(tmp_path / "frames.ckpt"), "--json"]

    assert main([*command, str(tmp_path / "one.csv")]) == 0
    values = json.loads(capsys.readouterr().out)["values"]
    np.testing.assert_allclose([values[name] for name in model.classes_], model.predict_proba(frames[:1])[0], rtol=1e-6)
    assert main([*command, str(tmp_path / "other.csv")]) == 2
    assert "line 2: no column 'a x'; this network reads a x, b" in capsys.readouterr().err


def test_labels_keep_their_type(tmp_path: Path) -> None:
    x, y = waves(24)
    model = RecurrentClassifier(**{**SMALL, "max_epochs": 1}).fit(x, np.where(y == "up", 10, 9))
    model.save(tmp_path / "numbers.ckpt")
    found = RecurrentClassifier.load(tmp_path / "numbers.ckpt")

    assert model.classes_.tolist() == [9, 10]  # by value, not as texts
    assert found.predict(x).dtype == model.predict(x).dtype == np.int64
    np.testing.assert_array_equal(found.predict_proba(x), model.predict_proba(x))


def test_a_fit_leaves_the_process_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = waves(24)
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    torch.set_default_dtype(torch.float64)
    try:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state(), dict(os.environ)
        settings = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
        with torch.no_grad():
            first = RecurrentClassifier(**{**SMALL, "max_epochs": 2}).fit(x, y)
            assert not torch.is_grad_enabled()
        random.seed(9), np.random.seed(9), torch.manual_seed(9)
        second = clone(first).fit(x, y)
        random.setstate(before[0]), np.random.set_state(before[1]), torch.set_rng_state(before[2])
        third = clone(first).fit(x, y)

        assert random.getstate() == before[0]
        assert np.random.get_state()[1].tolist() == before[1][1].tolist()
        assert torch.equal(torch.get_rng_state(), before[2])
        assert dict(os.environ) == before[3]
        assert torch.get_default_dtype() == torch.float64
        now = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
        assert now == settings
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(second.predict_proba(x), first.predict_proba(x))  # random_state alone decides
    np.testing.assert_array_equal(third.predict_proba(x), first.predict_proba(x))
    assert list(tmp_path.iterdir()) == []
    assert [str(each.message) for each in recwarn] == []


def test_an_interrupt_ends_a_training_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        while not list(tmp_path.glob("unrolled-*/checkpoints")):  # written by the first validation
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        RecurrentClassifier(**{**SMALL, "max_epochs": 10_000, "n_iter_no_change": 10_000}).fit(*waves(24))
    thread.join()

    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is before


def test_a_regressor_predicts_one_number_or_several(tmp_path: Path) -> None:
    x, _ = waves()
    y = np.array([sequence[:, 0].mean() + sequence[-1, 0] for sequence in x]) * 1000 + 5000
    model = RecurrentRegressor(**{**SMALL, "max_epochs": 30}).fit(x, y)
    both = RecurrentRegressor(**{**SMALL, "max_epochs": 1}).fit(x, np.stack([y, -y], 1))
    model.save(tmp_path / "numbers.ckpt")

    assert model.score(x, y) > 0.9
    assert both.predict(x).shape == (len(x), 2)
    np.testing.assert_array_equal(RecurrentRegressor.load(tmp_path / "numbers.ckpt").predict(x), model.predict(x))


def test_scikit_learns_tools_take_an_estimator() -> None:
    x, y = waves(24)
    halved = FunctionTransformer(lambda sequences: [sequence / 2 for sequence in sequences])
    model = RecurrentClassifier(**{**SMALL, "max_epochs": 3})
    search = GridSearchCV(make_pipeline(halved, model), {"recurrentclassifier__hidden_size": [4, 8]}, cv=2)

    assert search.fit(x, y).best_params_["recurrentclassifier__hidden_size"] in (4, 8)
    assert cross_val_score(model, x, y, cv=2).shape == (2,)


def test_fit_chooses_the_estimator_and_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = waves(24)
    small = {"hidden_size": 4, "max_epochs": 1}

    assert isinstance(unrolled.fit(x, y, **small), RecurrentClassifier)
    assert "RecurrentClassifier: the targets are texts, 2 labels\n" in capsys.readouterr().out
    assert isinstance(unrolled.fit(x, torch.arange(24.0), verbose=False, **small), RecurrentRegressor)
    assert capsys.readouterr().out == ""
    assert isinstance(unrolled.fit(x, np.arange(24), task="regressor", **small), RecurrentRegressor)
    with pytest.raises(ValueError, match=r"takes no 'hiden_size'; did you mean hidden_size\?"):
        unrolled.fit(x, y, hiden_size=4)
    with pytest.raises(ValueError, match="y is None: give a target for each sequence"):
        unrolled.fit(x)


X, Y = waves(8)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([*X[:7], np.full((3, 2), np.nan)], Y, r"Input contains NaN: step 0, feature 0 of X\[7\]"),
        ([*X[:7], X[7][:, :1]], Y, r"X\[7\] has 1 feature, but X\[0\] has 2"),
        ([*X[:7], X[7][:0]], Y, r"X\[7\] is empty"),
        (X, Y[:7], "X has 8 sequences, and y 7 targets"),
        (X, ["up"] * 8, "only one class is present: all labels are 'up'"),
        (X, None, "the target y is None"),
        ([], [], r"Found array with 0 sample\(s\)"),
        (np.arange(8.0), Y, "Expected 2D array, got 1D array instead"),
        ("abc", Y, "X is 'abc': expected sequences of numbers"),
    ],
)
def test_data_that_cannot_be_used_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentClassifier(**SMALL).fit(x, y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden_size": 0}, "hidden_size=0 must be a whole number, 1 or more"),
        ({"validation_fraction": 0.7}, "validation_fraction=0.7 must be 0 or more, and below 0.5"),
        ({"device": "tpu"}, "device='tpu' must be one of auto, cpu"),
        ({"model": "lstn"}, "model=lstn: there is no such model; did you mean model=lstm?"),
        ({"n_jobs": 0}, "n_jobs=0 must be a number of threads"),
        ({"overrides": ["optimizer.ammsgrad=true"]}, "ammsgrad"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentClassifier(**{**SMALL, **parameters}).fit(X, Y)


@pytest.mark.parametrize("kind", [RecurrentClassifier, RecurrentRegressor])
def test_an_estimator_without_a_training_says_so(kind: Any) -> None:
    with pytest.raises(NotFittedError, match=f"This {kind.__name__} instance is not fitted yet"):
        kind().predict(X)
    with pytest.raises(NotFittedError):
        kind().save("nowhere.ckpt")


def test_new_sequences_need_the_features_of_training(fitted: RecurrentClassifier) -> None:
    with pytest.raises(ValueError, match="X has 3 features a step, but RecurrentClassifier is expecting 2"):
        fitted.predict([np.zeros((4, 3))])
    with pytest.raises(ValueError, match="y has the same value in all of 8 samples"):
        RecurrentRegressor(**SMALL).fit(X, np.ones(8))
