"""The base class of tasks on generated data: a prediction at each step or at some, scored as the problem defines it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from unrolled.training.console.lengths import draw_by_length
from unrolled.training.console.markdown import table
from unrolled.training.console.outputs import save_figure, write_text
from unrolled.training.data.base import SequenceData
from unrolled.training.data.buckets import BucketPlan
from unrolled.training.data.generated import GeneratedBatch, GeneratedData, Problem
from unrolled.training.data.loader import PlannedLoader
from unrolled.training.tasks.evaluation import Scored
from unrolled.training.tasks.tagger import TaggerTask
from unrolled.wording import article

_SHOWN = 10  # sequences in predictions.md
_MOST_STEPS = 100  # predictions of a sequence there


class Prediction(NamedTuple):
    """A prediction, for a report."""

    step: int
    input: str
    outputs: list[float]
    truth: list[float]
    right: bool


class Answer(NamedTuple):
    """What the network predicted of a sequence.

    Attributes:
        example: number of the sequence.
        length: number of its steps.
        predictions: number of predictions.
        before_mistake: number of predictions before the first wrong one.
        shown: the predictions of the first sequences; empty for others.
    """

    example: int
    length: int
    predictions: int
    before_mistake: int
    shown: list[Prediction]

    @property
    def right(self) -> bool:
        """Whether all predictions are right."""
        return self.before_mistake == self.predictions


class GeneratedTask(TaggerTask):
    """Trains a network on the examples of a `Problem`.

    Metrics are the loss; `accuracy`, the share of right predictions; `exact_match`, the share of sequences whose
    predictions are all right; `mean_absolute_error` of the outputs, probabilities or numbers; `solved`, 1 if the
    problem's criterion is met; `solved_length`, the greatest length up to which all sequences are right, 0 for none;
    and `sequences`, the number of training sequences that the run had read at its last validation.
    """

    files: ClassVar[Mapping[str, str]] = {
        "predictions.md": "the first sequences with their predictions and the truth",
        "by_length.png": "share of right sequences by length",
    }
    progress_metrics = ("exact_match",)
    _sequences: int | None = None  # read until the last validation of this run; None without training

    def attach(self, data: SequenceData) -> None:
        """See `SequenceTask.attach`.

        Raises:
            ValueError: data of another kind.
        """
        if not isinstance(data, GeneratedData):
            raise ValueError(
                f"{type(self).__name__} needs generated data, not {article(type(data).__name__)}; choose data=… of "
                "this task, or another task=…"
            )
        super().attach(data)

    @property
    def problem(self) -> Problem:
        """The problem of the data."""
        return cast("GeneratedData", self.data).problem

    def score(self, batch: GeneratedBatch, loader: str) -> Scored:
        """Returns loss, accuracy and error, and for each sequence what is right."""
        parameters, mask = self.predict(batch)
        head: Any = self.network.head
        outputs = head.predict(parameters) if self.problem.target_type == "number" else head.probabilities(parameters)
        right = self.problem.right(outputs, batch.truth)
        loss = head.loss(parameters, batch.targets, mask)
        error = (outputs - batch.truth).abs().mean(-1).masked_fill(~mask, 0.0)
        # The padding is as good as a mistake: what is counted ends there.
        before = (right & mask).long().cumprod(1).sum(1)
        rows = [
            Answer(example, length, predictions, count, self._shown(batch, place, example, predictions, outputs, right))
            for place, (example, length, predictions, count) in enumerate(
                zip(
                    *(each.tolist() for each in (batch.examples, batch.lengths, batch.predictions, before)), strict=True
                )
            )
        ]
        sums = {"loss": loss, "accuracy": ((right & mask).sum(), loss.count)}
        return Scored({**sums, "mean_absolute_error": (error.double().sum(), loss.count)}, rows)

    def _shown(
        self, batch: GeneratedBatch, place: int, example: int, predictions: int, outputs: Tensor, right: Tensor
    ) -> list[Prediction]:
        if example >= _SHOWN or predictions > _MOST_STEPS:
            return []
        steps = list(range(predictions)) if batch.positions is None else batch.positions[place, :predictions].tolist()
        columns = (each[place, :predictions].tolist() for each in (outputs, batch.truth, right))
        return [
            Prediction(step, self._input(batch.source[place, step]), *columns)
            for step, *columns in zip(steps, *columns, strict=True)
        ]

    def _input(self, value: Tensor) -> str:
        names = self.problem.names
        return names[int(value)] if value.ndim == 0 else ", ".join(f"{number:.3g}" for number in value.tolist())

    def scores(self, means: Mapping[str, float], rows: Sequence[Answer]) -> dict[str, float]:
        """Returns the metrics; see the class."""
        matched = sum(row.right for row in rows) / max(len(rows), 1)
        # As counts with a margin: 12/2000 is not a binary fraction.
        criterion = self.problem.criterion
        few = sum(not row.right for row in rows) <= criterion.max_wrong * len(rows) + 1e-9
        found = {
            **means,
            "exact_match": matched,
            "solved": float(few and means["mean_absolute_error"] < criterion.max_error),
            "solved_length": float(_solved_length(rows)),
        }
        loader: Any = self.trainer.train_dataloader  # None after training
        if isinstance(loader, PlannedLoader) and isinstance(loader.plan, BucketPlan):
            state = loader.state_dict()
            self._sequences = loader.plan.examples_before(state["epoch"], state["position"], loader.taken)
        return found if self._sequences is None else {**found, "sequences": float(self._sequences)}

    def sample(self, generator: torch.Generator) -> str:
        """Returns the first sequences of the validation, with the first mistake of each."""
        rows = [row for row in cast("list[Answer]", self.evaluation.rows[:_SHOWN]) if row.shown]
        return "\n".join(self._line(row) for row in rows)

    def _line(self, row: Answer) -> str:
        inputs = "".join(f"{each.input} " for each in row.shown)
        if row.right:
            return f"right: {inputs}"
        wrong = row.shown[row.before_mistake]
        return (
            f"wrong: {inputs}after step {wrong.step + 1}: {self._named(wrong.outputs)}, not {self._named(wrong.truth)}"
        )

    def _named(self, values: Sequence[float]) -> str:
        """Returns outputs in words: numbers, or the names of those above a few percent with their probability."""
        names = self.problem.outputs
        if self.problem.target_type == "number":
            return ", ".join(f"{value:.3f}" for value in values)
        likely = sorted(((value, name) for value, name in zip(values, names, strict=True) if value >= 0.05))[::-1]
        return " ".join(name if value == 1.0 else f"{name} {value:.2f}" for value, name in likely) or "none"

    def report(self, rows: Sequence[Answer], folder: Path) -> None:
        """Writes predictions.md and by_length.png."""
        page = ["# Predictions of the first sequences", ""]
        for row in rows[:_SHOWN]:
            state = "all right" if row.right else f"first mistake at prediction {row.before_mistake + 1:,}"
            page += [f"## Sequence {row.example}: {row.length:,} steps, {state}", ""]
            cells = [
                (one.step + 1, one.input, self._named(one.truth), self._named(one.outputs), "" if one.right else "✗")
                for one in row.shown
            ]
            page += table(("step", "input", "truth", "prediction", ""), cells) if cells else []
        write_text(folder / "predictions.md", "\n".join(page))
        figure = draw_by_length([row.length for row in rows], [row.right for row in rows])
        save_figure(folder / "by_length.png", figure, dpi=110)


def _solved_length(rows: Sequence[Answer]) -> int:
    """Returns the greatest length up to which all sequences are right."""
    shortest_wrong = min((row.length for row in rows if not row.right), default=None)
    return max((row.length for row in rows if shortest_wrong is None or row.length < shortest_wrong), default=0)
