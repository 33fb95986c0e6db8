"""Metrics, tables and figures of predictions."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor
from torchmetrics.functional import mean_absolute_error, mean_squared_error, r2_score
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multilabel_accuracy,
    multilabel_auroc,
    multilabel_exact_match,
    multilabel_f1_score,
)

_BINS = 15  # of the calibration error, as in Guo et al. 2017


class Prediction(NamedTuple):
    """The prediction for one example.

    Attributes:
        example: number of the example within its split.
        name: readable name of the example.
        target: id of its label, 0 or 1 for each label, or numbers.
        output: probabilities of the labels, or numbers.
        early: outputs after fractions of the sequence; empty if not requested.
    """

    example: int
    name: str
    target: list[float]
    output: list[float]
    early: list[list[float]]


def label_scores(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Computes accuracy, macro F1, AUROC (macro, one-vs-rest) and expected calibration error, with torchmetrics."""
    outputs, targets = _tensors(predictions)
    targets = targets[:, 0].long()
    classes = outputs.shape[1]
    scores: dict[str, Tensor] = {
        "accuracy": multiclass_accuracy(outputs, targets, classes, average="micro"),
        "f1": multiclass_f1_score(outputs, targets, classes, average="macro"),
        "calibration_error": multiclass_calibration_error(outputs, targets, classes, n_bins=_BINS),
    }
    present = targets.unique()
    if len(present) > 1:  # AUROC is undefined for a class that the split lacks
        areas: Any = multiclass_auroc(outputs, targets, classes, average="none")
        scores["auroc"] = areas[present].mean()
    return {name: float(value) for name, value in scores.items()}


def multilabel_scores(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Computes accuracy over single labels, exact matches of all labels, macro F1, AUROC and calibration error."""
    outputs, targets = _tensors(predictions)
    targets = targets.long()
    labels = outputs.shape[1]
    scores: dict[str, Tensor] = {
        "accuracy": multilabel_accuracy(outputs, targets, labels, average="micro"),
        "exact": multilabel_exact_match(outputs, targets, labels),
        "f1": multilabel_f1_score(outputs, targets, labels, average="macro"),
        "calibration_error": binary_calibration_error(outputs.flatten(), targets.flatten(), n_bins=_BINS),
    }
    defined = [label for label in range(labels) if 0 < int(targets[:, label].sum()) < len(targets)]
    if defined:
        areas: Any = multilabel_auroc(outputs, targets, labels, average="none")
        scores["auroc"] = areas[defined].mean()
    return {name: float(value) for name, value in scores.items()}


def number_scores(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Computes mean absolute error and root mean squared error in the original units, and R², with torchmetrics."""
    outputs, targets = _tensors(predictions, torch.float64)
    # An offset changes none of these metrics, but far from zero R², a difference of squares, has rounding errors.
    outputs, targets = outputs - targets.mean(0), targets - targets.mean(0)
    scores = {
        "mean_absolute_error": float(mean_absolute_error(outputs, targets)),
        "root_mean_squared_error": math.sqrt(float(mean_squared_error(outputs, targets))),
    }
    if len(outputs) > 1:
        scores["r2"] = float(r2_score(outputs, targets, multioutput="uniform_average"))
    return scores


def early_accuracy(predictions: Sequence[Prediction]) -> list[float]:
    """Returns the accuracy after each fraction of the sequences."""
    early = torch.tensor([prediction.early for prediction in predictions])
    targets = torch.tensor([prediction.target[0] for prediction in predictions]).long()
    return (early.argmax(-1) == targets.unsqueeze(1)).float().mean(0).tolist()


def mistakes(predictions: Sequence[Prediction], labels: Sequence[str], most: int) -> list[tuple[str, str, str, float]]:
    """Returns (source, label, predicted label, its probability) of wrong predictions, the most confident first."""
    wrong: list[tuple[float, Prediction, int]] = []
    for prediction in predictions:
        predicted = max(range(len(prediction.output)), key=prediction.output.__getitem__)
        if predicted != int(prediction.target[0]):
            wrong.append((prediction.output[predicted], prediction, predicted))
    wrong.sort(key=lambda each: (-each[0], each[1].example))
    return [(p.name, labels[int(p.target[0])], labels[predicted], prob) for prob, p, predicted in wrong[:most]]


def confusion(predictions: Sequence[Prediction]) -> Tensor:
    """Returns the confusion matrix (label, predicted label)."""
    outputs, targets = _tensors(predictions)
    return multiclass_confusion_matrix(outputs, targets[:, 0].long(), outputs.shape[1])


def draw_early(shares: Sequence[float], accuracies: Sequence[float], chance: float) -> Figure:
    """Draws accuracy against the fraction of the sequence that the network has read."""
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(shares, accuracies, color="#0072B2", marker="o", markersize=4, linewidth=1.8)
    axes.axhline(chance, color="#999999", linewidth=0.8, linestyle=(0, (4, 4)))
    axes.annotate("the most frequent label", (0.99, chance), ha="right", va="bottom", fontsize=8, color="#666666")
    axes.set_xlim(0.0, 1.02)
    axes.set_ylim(0.0, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("fraction of the sequence")
    axes.set_ylabel("accuracy")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _tensors(predictions: Sequence[Prediction], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    outputs, targets = [o.output for o in predictions], [o.target for o in predictions]
    return torch.tensor(outputs, dtype=dtype), torch.tensor(targets, dtype=dtype)
