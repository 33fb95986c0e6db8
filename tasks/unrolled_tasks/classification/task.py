"""Classification and regression of sequences."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from unrolled.deployment.classification import predicted_values
from unrolled.heads.categorical import CategoricalHead
from unrolled.heads.labels import LabelsHead
from unrolled.losses import Loss
from unrolled.models.classifier import SequenceClassifier
from unrolled.processing.frames import SeriesScaler
from unrolled.processing.labels import LabelEncoder
from unrolled.processing.numbers import Scaler
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.transform import Processor
from unrolled.training.configuration.flat import flat_options
from unrolled.training.console.terminal import echo_command
from unrolled.training.tasks.base import SequenceTask
from unrolled.training.tasks.evaluation import Scored
from unrolled.training.tasks.optimization import Optimization
from unrolled.training.tasks.vectors import VectorOptions
from unrolled.wording import article
from unrolled_tasks.classification.data import ClassificationData, LabeledBatch
from unrolled_tasks.classification.kinds import SingleLabel, kind_of
from unrolled_tasks.classification.mixup import mixup
from unrolled_tasks.classification.options import LabelOptions, ReportOptions
from unrolled_tasks.classification.scores import Prediction


class Classification(SequenceTask):
    """Trains a network to predict a label, several labels, or numbers, depending on the target's transform.

    The network's head computes the loss: a `CategoricalHead` for a label, a `LabelsHead` for several, a `NumbersHead`
    or any other `Head` whose prediction is a vector of numbers.

    Args:
        network: description of a `SequenceClassifier`.
        processor: the transform of sources, and a `LabelEncoder` or `Scaler` of targets.
        optimization: see `SequenceTask`; fields of all these options can be arguments, too.
        labels: the loss of labels.
        embeddings: the initial word embeddings.
        shown: what evaluations show.
        mixup: concentration of mixup for frames, see `mixup.mixup`, with a weighted loss of both targets; 0 for none.

    Raises:
        ValueError: an invalid option, or an option for labels with a `Scaler`.
    """

    network: SequenceClassifier  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, never another

    files: ClassVar[Mapping[str, str]] = {
        "predictions.jsonl": "prediction for each test example",
        "confusion.png": "confusion matrix",
        "early.png": "accuracy after fractions of the sequences",
        "mistakes.md": "most confident wrong predictions",
    }

    @flat_options
    def __init__(
        self,
        network: Mapping[str, Any],
        processor: Processor,
        optimization: Optimization = Optimization(),
        labels: LabelOptions = LabelOptions(),
        embeddings: VectorOptions = VectorOptions(),
        shown: ReportOptions = ReportOptions(),
        mixup: float = 0.0,
    ) -> None:
        super().__init__(network=network, processor=processor, optimization=optimization)
        source, target = processor
        if not isinstance(target, LabelEncoder | Scaler):
            raise ValueError(
                "processor: classification needs a LabelEncoder or a Scaler of targets, not "
                f"{article(type(target).__name__)}"
            )
        if not 0 <= mixup < float("inf") or (mixup and isinstance(source, Tokenizer)):
            raise ValueError(f"mixup={mixup} must be 0 or more, and 0 for text: only frames can be mixed")
        self.target: LabelEncoder | Scaler = target
        self.kind = kind_of(target)
        self.kind.check(self.network.head)
        self.class_weights = labels.by_label(target)
        if isinstance(self.network.head, CategoricalHead | LabelsHead):
            self.network.head.label_smoothing = labels.label_smoothing
        single = isinstance(self.kind, SingleLabel)
        self.prefix_fractions = [float(share) for share in shown.prefix_fractions] if single else []
        self.mixup, self.shown, self._embeddings = mixup, shown, embeddings
        embeddings.freeze(getattr(self.network.encoder, "embedding", None))

    def load_pretrained(self) -> None:
        """Initializes embeddings with word vectors."""
        embedding = getattr(self.network.encoder, "embedding", None)
        self.notes |= self._embeddings.load(self.processor.source, embedding)

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Returns commands that classify."""
        use, example = f"python -m unrolled classify {checkpoint}", self.example()
        if isinstance(self.processor.source, Tokenizer):
            return (
                f"{echo_command(example or 'some words')} | {use}",
                f"# a file, line by line: {use} < FILE",
            )
        if isinstance(self.processor.source, SeriesScaler):  # whose examples are no .csv files of a series each
            return ()
        return (*([f"{use} {example}"] if example else []), f"# your own files: {use} FILE …")

    def on_fit_start(self) -> None:
        """Sets the class weights."""
        super().on_fit_start()
        if self.class_weights is None:
            return
        labels = cast("LabelEncoder", self.target).labels
        if isinstance(self.class_weights, str):
            if not isinstance(self.data, ClassificationData):
                raise ValueError("class_weights=balanced counts the labels of ClassificationData; give weights instead")
            counts = self.data.training_counts()
            total = sum(counts.values())
            weights = [total / (len(labels) * max(counts[label], 1)) for label in labels]
        else:
            weights = [self.class_weights[label] for label in labels]
        cast("CategoricalHead | LabelsHead", self.network.head).class_weights = torch.tensor(
            weights, device=self.device
        )

    def loss(self, batch: LabeledBatch, loader: str) -> Loss:
        """Returns the summed loss of the head; without weights and smoothing in evaluation mode."""
        return self.network.head.loss(self.network(batch.source, batch.lengths), batch.targets)

    def training_step(self, batch: LabeledBatch, batch_idx: int) -> Tensor:
        """Returns the batch's share of the optimizer step's mean loss."""
        if self.mixup:
            source, lengths, share, others = mixup(batch.source, batch.lengths, self.mixup)
            outputs, head = self.network(source, lengths), self.network.head
            own, other = head.loss(outputs, batch.targets), head.loss(outputs, batch.targets[others])
            loss = Loss(share * own.total + (1 - share) * other.total, own.count)
        else:
            loss = self.loss(batch, "train")
        self.log_step("train/loss", loss.mean.detach(), prog_bar=True, batch_size=len(batch.lengths))
        return loss.total * batch.scale + self.penalty()

    def score(self, batch: LabeledBatch, loader: str) -> Scored:
        """Returns the loss, and a `Prediction` of each example; in the test also after `prefix_fractions`."""
        outputs = self.network(batch.source, batch.lengths)
        loss = self.network.head.loss(outputs, batch.targets)
        values = predicted_values(self.network, outputs, self.target).tolist()
        targets = batch.targets.reshape(len(outputs), -1).tolist()
        if isinstance(self.target, Scaler):
            targets = [list(numbers) for numbers in batch.numbers]
        early: list[list[list[float]]] = [[] for _ in values]
        if self.prefix_fractions and loader == "test":
            early = self.network.predict_prefixes(batch.source, batch.lengths, self.prefix_fractions).tolist()
        rows = zip(batch.examples.tolist(), batch.names, targets, values, early, strict=True)
        return Scored({"loss": loss}, [Prediction(*row) for row in rows])

    def scores(self, means: Mapping[str, float], rows: Sequence[Prediction]) -> dict[str, float]:
        """Returns the loss and the metrics of the kind of target; see `scores.py`."""
        return {**means, **(self.kind.metrics(rows) if rows else {})}

    def sample(self, generator: torch.Generator) -> str:
        """Returns the predictions for the first validation examples."""
        first = cast("list[Prediction]", self.evaluation.rows[: self.shown.num_samples])
        return "\n".join(self._line(prediction) for prediction in first)

    def report(self, rows: Sequence[Prediction], folder: Path) -> None:
        """Writes predictions.jsonl and, for a single label, confusion.png, mistakes.md, early.png and early.csv."""
        self.kind.report(rows, folder, self.prefix_fractions, self.shown.num_mistakes)
        if self.fit_started and self.shown.linear_baseline and isinstance(self.data, ClassificationData):
            self.notes |= _baseline_notes(self.data)

    def _line(self, prediction: Prediction) -> str:
        name = prediction.name if len(prediction.name) <= 80 else f"{prediction.name[:79]}…"
        return f"{name}: {self.kind.line(prediction)}"


def _baseline_notes(data: ClassificationData) -> dict[str, str | float]:
    """Returns the metrics of the linear model and its description, or why there is none."""
    from unrolled_tasks.classification.baseline import linear_baseline

    try:
        metrics, description = linear_baseline(data)
    except ModuleNotFoundError:
        return {"linear": "not fitted: it needs scikit-learn, pip install scikit-learn"}
    return {**{f"linear/{name}": value for name, value in metrics.items()}, "linear": description}
