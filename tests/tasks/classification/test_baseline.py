"""The linear model beside a network: what it reads, and that it is what scikit-learn fits."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from unrolled.training.run.runner import run
from unrolled_tasks.classification import ClassificationData, Images, Series, Text
from unrolled_tasks.classification import baseline as module
from unrolled_tasks.classification.baseline import linear_baseline

Configure = Callable[..., DictConfig]
KINDS: dict[str, Any] = {"label": "tone", "labels": "tags", "number": "stars", "share": "part"}


@pytest.fixture
def texts(folder: Path) -> list[dict[str, Any]]:
    """Texts whose tone is that of a word, sometimes of another one."""
    draw = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for n in range(150):
        good = bool(draw.random() < 0.5)
        word = "fine" if good != (draw.random() < 0.1) else "poor"
        text = f"a {word} film with scene {n % 7} of {'music' if n % 3 else 'rain'}"
        tags = ["good"] * good + ["loud"] * (n % 3 > 0)
        rows.append({"text": text, "tone": str(good), "tags": tags, "stars": 2.0 + 2 * good, "part": 0.2 + 0.6 * good})
    for split, part in (("train", rows[:100]), ("validation", rows[100:120]), ("test", rows[120:])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return rows


def text_data(folder: Path, target_type: str) -> ClassificationData:
    files = {name: str(folder / f"{split}.jsonl") for name, split in (("files", "train"), ("test_files", "test"))}
    data = ClassificationData(
        modality=Text(),
        unit="token",
        **files,
        validation_files=str(folder / "validation.jsonl"),
        source="text",
        target=KINDS[target_type],
        target_type=target_type,
    )
    data.prepare()
    return data


@pytest.mark.parametrize("target_type", KINDS)
def test_texts_are_judged_as_scikit_learn_judges_them(
    texts: list[dict[str, Any]], folder: Path, target_type: str
) -> None:
    metrics, description = linear_baseline(text_data(folder, target_type))

    vectors = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", sublinear_tf=True)
    train = vectors.fit_transform([row["text"] for row in texts[:100]])
    test = vectors.transform([row["text"] for row in texts[120:]])
    values = [row[KINDS[target_type]] for row in texts]
    strength = float(description.rpartition("=")[2])
    logistic = OneVsRestClassifier(LogisticRegression(C=strength, solver="liblinear"))
    if target_type == "label":
        expected = {"accuracy": logistic.fit(train, values[:100]).score(test, values[120:])}
    elif target_type == "labels":
        known = np.array([[name in tags for name in ("good", "loud")] for tags in values])
        right = logistic.fit(train, known[:100]).predict(test) == known[120:]
        expected = {"accuracy": right.mean(), "exact": right.all(1).mean()}
    else:
        array = np.array(values)
        scale = array[:100].std() if target_type == "number" else 1.0  # the network's targets are standardized
        center = array[:100].mean() if target_type == "number" else 0.0
        ridge = Ridge(alpha=1 / strength).fit(train, (array[:100] - center) / scale)
        predicted = ridge.predict(test) * scale + center
        expected = {"mean_absolute_error": np.abs(predicted.clip(0, 4 if scale > 0.5 else 1) - array[120:]).mean()}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert "100 training examples" in description


def test_short_sequences_are_read_whole_and_long_ones_as_mean_and_deviation(folder: Path) -> None:
    data = ClassificationData(modality=Images(), package="digits", split_fractions=[0.7, 0.1, 0.2])
    data.prepare()
    metrics, description = linear_baseline(data)
    assert "all frames, 1,258 training examples" in description
    assert metrics["accuracy"] > 0.94
    assert load_digits().data.shape[1] == 64 == data.sizes()["features"] * data.content("train").steps[0]

    draw = np.random.default_rng(1)
    with (folder / "series.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["series", "x", "y", "label"])
        for n in range(60):
            for _ in range(5 + n % 3):
                table.writerow([n, *draw.normal([0, 0], [1.0, 1.0 + n % 2]), n % 2])
    series = ClassificationData(modality=Series(series="series"), files=str(folder / "series.csv"), target="label")
    series.prepare()
    metrics, description = linear_baseline(series)

    rows = {}
    for split in ("train", "test"):
        content = series.content(split)
        frames = [np.asarray(stored) for stored in content.stored]
        rows[split] = np.array([[*f.mean(0), *f.std(0)] for f in frames]), content.targets.numpy()
    scaler, strength = StandardScaler(), float(description.rpartition("=")[2])
    model = LogisticRegression(C=strength).fit(scaler.fit_transform(rows["train"][0]), rows["train"][1])
    assert metrics["accuracy"] == pytest.approx(model.score(scaler.transform(rows["test"][0]), rows["test"][1]))
    assert "mean and deviation" in description


def test_large_training_splits_are_read_in_part(
    texts: list[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_EXAMPLES", 40)

    assert "34 training examples" in linear_baseline(text_data(folder, "label")).description


SMALL = ["task=classification", "model.hidden_size=8", "encoder.frame.hidden_size=8", "trainer.max_steps=2"]
QUIET = ["callbacks.progress=null", "callbacks.curves=null", "+trainer.enable_progress_bar=false", "trainer=cpu"]


def summary_of(configure: Configure, folder: Path, *options: str) -> dict[str, Any]:
    run(configure("run", *SMALL, *QUIET, *options, small=False))
    return json.loads((folder / "run" / "summary.json").read_text())


def test_a_run_ends_with_the_linear_model_beside_the_network(
    folder: Path, configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = summary_of(configure, folder)

    assert summary["linear/accuracy"] > 0.9 > summary["test/accuracy"]
    assert "logistic regression on all frames" in summary["linear"]
    assert f"linear/accuracy           {summary['linear/accuracy']:.4f}" in capsys.readouterr().out


def test_it_can_be_left_out_and_is_left_out_without_scikit_learn(
    folder: Path, configure: Configure, texts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "data=sentences",
        "data.files=train.jsonl",
        "data.target=tone",
        "encoder.token.hidden_size=8",
        "encoder.token.embedding.size=8",
    ]
    assert not any(
        name.startswith("linear") for name in summary_of(configure, folder, *words, "task.linear_baseline=false")
    )
    for name in [name for name in sys.modules if name == "sklearn" or name.startswith("sklearn.")]:
        monkeypatch.setitem(sys.modules, name, None)

    run(configure("second", *SMALL, *QUIET, *words, small=False))

    summary = json.loads((folder / "second" / "summary.json").read_text())
    assert {name: note for name, note in summary.items() if name.startswith("linear")} == {
        "linear": "not fitted: it needs scikit-learn, pip install scikit-learn"
    }
