"""A linear model of the same examples, which a network should beat: it knows words or averages, and no order."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from unrolled.processing.labels import LabelEncoder
from unrolled.processing.numbers import Scaler
from unrolled_tasks.classification.data import ClassificationData
from unrolled_tasks.classification.kinds import kind_of
from unrolled_tasks.classification.scores import Prediction

MAX_EXAMPLES = 10_000
"""Maximum number of training examples of the linear model, so that it takes seconds."""

_MAX_FLAT = 1024  # maximum number of values of a sequence that is read whole, not as means and deviations
_WORD = r"\w+(?:['’\-]\w+)*|['’]\w+|[^\w\s]"
_STRENGTHS = {"token": (0.3, 1.0, 3.0, 10.0, 30.0), "frame": (0.01, 0.1, 1.0, 10.0)}  # C, of weak regularization last

Array = NDArray[Any]


class LinearBaseline(NamedTuple):
    """The metrics of a linear model on the scored split, by name, and how it was fitted."""

    metrics: Mapping[str, float]
    description: str


class _Split(NamedTuple):
    sources: Any  # texts, or an array (examples, features)
    encoded: Array  # targets of the loss
    originals: list[list[float]]  # the id of the label, 0 or 1 for each label, or numbers in their own units


def linear_baseline(data: ClassificationData) -> LinearBaseline:
    """Fits a linear model to the training split and scores it on the split that a test scores.

    Texts are tf-idf of words and pairs of words, with logarithmic counts. Short sequences of equal lengths are read as
    they are, frame after frame, others as mean and standard deviation of each feature. A logistic regression predicts
    labels, a ridge regression numbers. The validation split selects the strength of the regularization.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
        ValueError: there are no training examples.
    """
    from sklearn.exceptions import ConvergenceWarning

    target, text = cast("LabelEncoder | Scaler", data.processor().target), data.unit == "token"
    kind = kind_of(target)
    if "train" not in data.splits():
        raise ValueError("there are no training examples")
    whole = not text and _short(data)
    train, scored = (_read(data, split, whole=whole) for split in ("train", data.evaluated_split))
    chosen_on = _read(data, "validation", whole=whole) if "validation" in data.splits() else None
    features = _features(text=text)
    inputs = features.fit_transform(train.sources)
    fitted: list[tuple[float, float, Callable[[Any], Array]]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="Label .* is present in all training examples")
        for strength in _STRENGTHS[data.unit] if chosen_on else (1.0,):
            predict = _fit(inputs, train.encoded, target, strength, text=text)
            metrics = {} if chosen_on is None else kind.metrics(_rows(predict, features, chosen_on))
            fitted.append((metrics.get(kind.main_metric, 0.0), strength, predict))
    _, strength, predict = max(fitted, key=lambda each: each[0])
    model = "ridge" if isinstance(target, Scaler) else "logistic"
    what = "tf-idf of words and pairs" if text else "all frames" if whole else "mean and deviation of each feature"
    count = f"{len(train.originals):,} training examples"
    description = f"{model} regression on {what}, {count}, C={strength:g}"
    return LinearBaseline(kind.metrics(_rows(predict, features, scored)), description)


def _short(data: ClassificationData) -> bool:
    """Returns whether all sequences have the same length and few values."""
    steps = {steps for split in data.splits() for steps in data.content(split).steps}
    return len(steps) == 1 and max(steps) * data.sizes()["features"] <= _MAX_FLAT


def _read(data: ClassificationData, split: str, *, whole: bool) -> _Split:
    """Reads a split; of a large training split, evenly spaced examples."""
    content, target = data.content(split), data.processor().target
    count = len(content.steps)
    chosen = range(0, count, -(-count // MAX_EXAMPLES) if split == "train" else 1)
    encoded = content.targets[list(chosen)]
    originals = encoded.reshape(len(encoded), -1).tolist()
    if isinstance(target, Scaler):
        originals = [list(content.numbers[number]) for number in chosen]
    if data.unit == "token":
        sources: Any = [content.names[number] for number in chosen]  # a text's name is the text
    else:
        sources = np.stack([_summary(_frames(data, content, number), whole=whole) for number in chosen])
    return _Split(sources, encoded.numpy(), originals)


def _frames(data: ClassificationData, content: Any, number: int) -> Array:
    stored = content.stored[number]
    return (data.modality.read(stored, data.processor().source) if content.raw else stored).numpy()


def _summary(frames: Array, *, whole: bool) -> Array:
    """Returns one row of numbers for frames (time, features)."""
    return frames.reshape(-1) if whole else np.concatenate([frames.mean(0), frames.std(0)])


def _features(*, text: bool) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import StandardScaler

    return TfidfVectorizer(ngram_range=(1, 2), token_pattern=_WORD, sublinear_tf=True) if text else StandardScaler()


def _fit(
    inputs: Any, targets: Array, target: LabelEncoder | Scaler, strength: float, *, text: bool
) -> Callable[[Any], Array]:
    """Returns a function from inputs to probabilities of all labels, or to numbers in their own units."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    if isinstance(target, Scaler):
        ridge: Any = Ridge(alpha=1 / strength).fit(inputs, targets)

        def numbers(new: Any) -> Array:
            values = torch.from_numpy(ridge.predict(new).reshape(new.shape[0], -1))
            return (values.clamp(0.0, 1.0) if target.bounded else target.restore(values)).numpy()

        return numbers
    single = OneVsRestClassifier(LogisticRegression(C=strength, solver="liblinear", random_state=0))
    model: Any = single if text or target.multiple else LogisticRegression(C=strength, max_iter=300)
    model.fit(inputs, targets)

    def probabilities(new: Any) -> Array:
        found = np.asarray(model.predict_proba(new), dtype=np.float64)
        if target.multiple:
            return found
        every = np.zeros((len(found), target.size))
        every[:, model.classes_] = found
        return every

    return probabilities


def _rows(predict: Callable[[Any], Array], features: Any, split: _Split) -> list[Prediction]:
    outputs = predict(features.transform(split.sources)).tolist()
    pairs = enumerate(zip(split.originals, outputs, strict=True))
    return [Prediction(number, "", original, output, []) for number, (original, output) in pairs]
