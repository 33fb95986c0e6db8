"""Kinds of targets: one label, several labels, or numbers. Each has its metrics, files and printed lines."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from unrolled import CategoricalHead, Head, LabelEncoder, LabelsHead, Scaler
from unrolled.training.console.confusion import draw_confusion
from unrolled.training.console.markdown import table
from unrolled.training.console.outputs import save_figure, write_rows, write_text
from unrolled.wording import article
from unrolled_tasks.classification import scores as scoring
from unrolled_tasks.classification.scores import Prediction


class TargetKind(ABC):
    """What is scored, written and printed of the predictions of one kind of target.

    Attributes:
        heads: the heads that predict it.
        wanted: the usual head, for messages.
        main_metric: the metric by which models are compared; higher is better.

    Args:
        transform: the transform of targets.
    """

    heads: ClassVar[tuple[type[Head], ...]]
    wanted: ClassVar[str]
    main_metric: ClassVar[str] = "accuracy"

    def __init__(self, transform: LabelEncoder | Scaler) -> None:
        self.names = transform.names if isinstance(transform, Scaler) else transform.labels

    def check(self, head: Head) -> None:
        """Checks that the head predicts this kind of target.

        Raises:
            ValueError: a head for other targets.
        """
        if not self.fits(head):
            raise ValueError(f"network.head is {article(type(head).__name__)}; these targets need {self.wanted}")

    def fits(self, head: Head) -> bool:
        """Returns whether the head predicts this kind of target."""
        return isinstance(head, self.heads)

    @abstractmethod
    def metrics(self, rows: Sequence[Prediction]) -> dict[str, float]:
        """Computes the metrics of predictions, by name."""

    @abstractmethod
    def line(self, prediction: Prediction) -> str:
        """Returns the prediction and its target for a printed line."""

    @abstractmethod
    def row(self, prediction: Prediction) -> Mapping[str, Any]:
        """Returns a prediction and its target as plain data."""

    def report(self, rows: Sequence[Prediction], folder: Path, fractions: Sequence[float], num_mistakes: int) -> None:
        """Writes predictions.jsonl."""
        lines = (json.dumps({"source": row.name, **self.row(row)}, ensure_ascii=False) for row in rows)
        write_text(folder / "predictions.jsonl", "".join(f"{line}\n" for line in lines))


class Labels(TargetKind):
    """Any number of labels."""

    heads = (LabelsHead,)
    wanted = "a LabelsHead"

    def metrics(self, rows: Sequence[Prediction]) -> dict[str, float]:
        return scoring.multilabel_scores(rows)

    def line(self, prediction: Prediction) -> str:
        chosen, right = (", ".join(names) or "none" for names in self._chosen(prediction))
        return f"{chosen} (target {right})"

    def row(self, prediction: Prediction) -> Mapping[str, Any]:
        chosen, right = self._chosen(prediction)
        return {"labels": right, "prediction": chosen, "probabilities": self._probabilities(prediction)}

    def _chosen(self, prediction: Prediction) -> tuple[list[str], list[str]]:
        pairs = (prediction.output, prediction.target)
        chosen, right = ([n for n, p in zip(self.names, each, strict=True) if p > 0.5] for each in pairs)
        return chosen, right

    def _probabilities(self, prediction: Prediction) -> dict[str, float]:
        return {name: round(p, 6) for name, p in zip(self.names, prediction.output, strict=True)}


class SingleLabel(Labels):
    """One label."""

    heads = (CategoricalHead,)
    wanted = "a CategoricalHead"

    def metrics(self, rows: Sequence[Prediction]) -> dict[str, float]:
        found = scoring.label_scores(rows)
        if rows[0].early:
            accuracies = scoring.early_accuracy(rows)
            found["early_accuracy"] = math.fsum(accuracies) / len(accuracies)
        return found

    def line(self, prediction: Prediction) -> str:
        best, label = self._best(prediction), int(prediction.target[0])
        wrong = "" if best == label else f" (target {self.names[label]})"
        return f"{self.names[best]} at {prediction.output[best]:.0%}{wrong}"

    def row(self, prediction: Prediction) -> Mapping[str, Any]:
        label, chosen = self.names[int(prediction.target[0])], self.names[self._best(prediction)]
        return {"label": label, "prediction": chosen, "probabilities": self._probabilities(prediction)}

    def report(self, rows: Sequence[Prediction], folder: Path, fractions: Sequence[float], num_mistakes: int) -> None:
        """Writes predictions.jsonl, confusion.png, mistakes.md and, with fractions, early.png and early.csv."""
        super().report(rows, folder, fractions, num_mistakes)
        counts = scoring.confusion(rows)
        save_figure(folder / "confusion.png", draw_confusion(counts, self.names), dpi=110)
        wrong = scoring.mistakes(rows, self.names, num_mistakes)
        head = ("source", "label", "predicted label", "probability")
        page = ["# Most confident wrong predictions", "", *table(head, wrong, digits=3)]
        write_text(folder / "mistakes.md", "\n".join(page if wrong else ["All predictions are correct.", ""]))
        if fractions:
            accuracies = scoring.early_accuracy(rows)
            chance = float(counts.sum(1).max() / counts.sum())
            save_figure(folder / "early.png", scoring.draw_early(fractions, accuracies, chance), dpi=110)
            write_rows(folder / "early.csv", [("share", "accuracy"), *zip(fractions, accuracies, strict=True)])

    def _best(self, prediction: Prediction) -> int:
        return max(range(len(self.names)), key=prediction.output.__getitem__)


class Numbers(TargetKind):
    """Numbers in their original units."""

    heads = (Head,)
    wanted = "a NumbersHead"
    main_metric = "r2"

    def __init__(self, transform: Scaler) -> None:
        super().__init__(transform)
        self._format = transform.format

    def fits(self, head: Head) -> bool:
        """Returns true for all heads that predict no label."""
        return not isinstance(head, CategoricalHead | LabelsHead)

    def metrics(self, rows: Sequence[Prediction]) -> dict[str, float]:
        return scoring.number_scores(rows)

    def line(self, prediction: Prediction) -> str:
        target, output = (self._format(numbers, digits=4) for numbers in (prediction.target, prediction.output))
        rows = zip(self.names, output, target, strict=True)
        return ", ".join(f"{column} {value} (target {true})" for column, value, true in rows)

    def row(self, prediction: Prediction) -> Mapping[str, Any]:
        target, output = (dict(zip(self.names, each, strict=True)) for each in (prediction.target, prediction.output))
        return {"target": target, "prediction": output}


def kind_of(transform: LabelEncoder | Scaler) -> TargetKind:
    """Returns the kind of the targets that a transform encodes."""
    if isinstance(transform, Scaler):
        return Numbers(transform)
    return Labels(transform) if transform.multiple else SingleLabel(transform)
