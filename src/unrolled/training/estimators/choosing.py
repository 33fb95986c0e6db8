"""The choice of an estimator by the data."""

from typing import Any

import numpy as np

from unrolled.training.estimators.base import SequenceEstimator
from unrolled.training.estimators.forecaster import RecurrentForecaster
from unrolled.training.estimators.inputs import as_texts, is_frame
from unrolled.training.estimators.language_model import RecurrentLanguageModel
from unrolled.training.estimators.tagger import RecurrentTagger
from unrolled.training.estimators.whole import RecurrentClassifier, RecurrentRegressor
from unrolled.wording import counted

ESTIMATORS: dict[str, type[SequenceEstimator]] = {
    each.kind: each
    for each in (
        RecurrentClassifier,
        RecurrentRegressor,
        RecurrentForecaster,
        RecurrentTagger,
        RecurrentLanguageModel,
    )
}


def choose(x: Any, y: Any, task: str | None, horizon: int | None) -> tuple[type[SequenceEstimator], str]:
    """Returns the estimator for data, and why it was chosen.

    Raises:
        ValueError: an unknown task, or targets that decide nothing.
    """
    if task is not None:
        if task not in ESTIMATORS:
            raise ValueError(f"task={task!r} must be one of {', '.join(ESTIMATORS)}, or None to choose by the targets")
        return ESTIMATORS[task], f"as task={task!r} says"
    if horizon is not None:
        return RecurrentForecaster, f"horizon={horizon} asks for the next steps of series"
    if y is None:
        if isinstance(x, str) or as_texts(x, "x") is not None:
            return RecurrentLanguageModel, "there are texts, and no targets"
        raise ValueError(
            "y is None: give a target for each sequence; horizon=… forecasts series; texts need no targets"
        )
    if _are_label_sequences(y):
        return RecurrentTagger, "the targets are sequences of labels, one for each step"
    targets = np.asarray(y.detach().cpu() if hasattr(y, "detach") else y)
    if targets.dtype.kind in "fc":
        return RecurrentRegressor, "the targets are numbers with fractions; task='classifier' takes them for labels"
    if targets.dtype.kind in "biuUSO" and targets.ndim == 1:
        what = "texts" if targets.dtype.kind in "USO" else "whole numbers"
        number = counted(len(np.unique(targets.astype(str))), "label")
        other = "" if what == "texts" else "; task='regressor' takes them for numbers"
        return RecurrentClassifier, f"the targets are {what}, {number}{other}"
    raise ValueError(
        f"y has the type {targets.dtype} and the shape {targets.shape}, which decides nothing; name a task: "
        f"{', '.join(ESTIMATORS)}"
    )


def _are_label_sequences(y: Any) -> bool:
    """Returns whether targets are sequences of texts or whole numbers; by the first one, since they may be many."""
    if not hasattr(y, "__len__") or isinstance(y, str) or len(y) == 0 or is_frame(y):
        return False
    first = next(iter(y))
    if isinstance(first, str) or not hasattr(first, "__len__") or getattr(first, "ndim", 1) != 1:
        return False
    return np.asarray(first.detach().cpu() if hasattr(first, "detach") else first).dtype.kind in "biuUSO"
