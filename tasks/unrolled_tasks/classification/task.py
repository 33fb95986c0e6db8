"""Classification and regression of sequences: many steps in, one answer out."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from unrolled.deployment.classification import predicted_values
from unrolled.losses import Loss, binary_cross_entropy, cross_entropy, squared_error
from unrolled.models.classifier import SequenceClassifier
from unrolled.processing.frames import SeriesScaler
from unrolled.processing.labels import LabelCodec, NumberCodec
from unrolled.processing.text.base import Codec
from unrolled.training.callbacks.gathering import of_all_processes
from unrolled.training.console.markdown import table
from unrolled.training.console.outputs import save_figure, write_rows, write_text
from unrolled.training.console.terminal import piped
from unrolled.training.tasks.base import SequenceTask
from unrolled.training.tasks.schedules import Schedule
from unrolled.wording import article
from unrolled_tasks.classification import scores as scoring
from unrolled_tasks.classification.data import ClassificationData, LabelledBatch
from unrolled_tasks.classification.mixing import mixed
from unrolled_tasks.classification.scores import Prediction
from unrolled_tasks.classification.vectors import load_vectors


class Classification(SequenceTask):
    """A sequence in, its label out; or several labels, or numbers, as the codec says.

    Labels are learned by cross-entropy, several labels and numbers from 0 to 1 by binary cross-entropy, other numbers
    by the squared error of what the codec has normalized.

    Args:
        network: description of a `SequenceClassifier`; see `SequenceTask` for this and the next five.
        codec: a `LabelCodec` or `NumberCodec`.
        optimizer: a partial that takes parameter groups.
        schedule: how the learning rate moves.
        l1: weight of the absolute penalty.
        l2: weight of the square penalty.
        label_smoothing: share of the target that is spread over all labels.
        mixup: of sequences of frames; see `mixed`. The loss is that of both answers, by their shares. 0 for none.
        class_weights: what each label weighs in training, by its name; "balanced": the rarer, the more, so that all
            labels together weigh alike. None for equal weights.
        prefix_fractions: shares of each test sequence after which its answer is scored too; empty for none.
        num_samples: validation examples that are shown after every validation.
        num_mistakes: the surest wrong answers that a test lists.
        vectors: a text file of word vectors (GloVe, fastText) that the words' embeddings begin with.
        frozen: embeddings stay as they begin.

    Raises:
        ValueError: an impossible option, or one that is for labels only.
    """

    network: SequenceClassifier  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, never another

    files: ClassVar[Mapping[str, str]] = {
        "predictions.jsonl": "the answer to each test example",
        "confusion.png": "which label was taken for which",
        "early.png": "how soon the answer is right",
        "mistakes.md": "the surest wrong answers",
    }

    def __init__(
        self,
        network: Mapping[str, Any],
        codec: Codec,
        optimizer: Callable[[Iterable[Any]], Optimizer] | None,
        schedule: Schedule | None = None,
        *,
        l1: float = 0.0,
        l2: float = 0.0,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        class_weights: Mapping[Any, float] | str | None = None,
        prefix_fractions: Sequence[float] = (),
        num_samples: int = 6,
        num_mistakes: int = 30,
        vectors: str | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__(network, codec, optimizer, schedule, l1=l1, l2=l2)
        if not isinstance(codec, LabelCodec | NumberCodec):
            raise ValueError(
                f"codec: a classifier answers with labels or numbers, not by {article(type(codec).__name__)}"
            )
        if not 0.0 <= label_smoothing < 1.0 or min(num_samples, num_mistakes) < 0:
            raise ValueError(
                f"label_smoothing={label_smoothing} is a share in [0, 1), num_samples={num_samples} and "
                f"num_mistakes={num_mistakes} are 0 or more"
            )
        if not 0 <= mixup < float("inf") or (mixup and isinstance(codec.source, Codec)):
            raise ValueError(f"mixup={mixup} is 0 or more, and 0 for text: it mixes frames, and words cannot be mixed")
        if any(not 0 < share <= 1 for share in prefix_fractions):
            raise ValueError(f"prefix_fractions={list(prefix_fractions)}: numbers above 0 and at most 1")
        if isinstance(class_weights, str) and class_weights != "balanced":
            raise ValueError(f"class_weights={class_weights!r} is balanced, or a weight for each label, or null")
        self.target_codec: LabelCodec | NumberCodec = codec
        numbers = isinstance(codec, NumberCodec)
        if numbers and (label_smoothing or class_weights):
            raise ValueError("label_smoothing and class_weights are for labels; this network predicts numbers")
        if isinstance(class_weights, Mapping):
            class_weights = _weights_by_label(class_weights, cast("LabelCodec", codec))
        self.label_smoothing, self.mixup, self.class_weights = label_smoothing, mixup, class_weights
        self.single = isinstance(codec, LabelCodec) and not codec.multiple
        self.prefix_fractions = [float(share) for share in prefix_fractions] if self.single else []
        self.num_samples, self.num_mistakes = num_samples, num_mistakes
        self.mean_loss = MeanMetric()
        self.predictions: list[Prediction] = []
        self._vectors = vectors
        self._weights: Tensor | None = None
        embedding = getattr(self.network.encoder, "embedding", None)
        if (vectors is not None or frozen) and embedding is None:
            raise ValueError("vectors and frozen are for words: this network reads frames, and has no embedding")
        if frozen:
            embedding.weight.requires_grad_(False)  # pyright: ignore[reportOptionalMemberAccess]

    def load_pretrained(self) -> None:
        """Puts word vectors into fresh embeddings."""
        if self._vectors is not None:
            self.notes["vectors"] = load_vectors(self._vectors, self.target_codec.source, self.network.encoder)

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Classify."""
        use, example = f"python -m unrolled classify {checkpoint}", self.example()
        if isinstance(self.target_codec.source, Codec):
            return (
                f"{piped(example or 'some words')} | {use}",
                f"# a file, line by line: {use} < FILE",
            )
        if isinstance(self.target_codec.source, SeriesScaler):  # read from Python alone
            return ()
        return (*([f"{use} {example}"] if example else []), f"# files of yours: {use} FILE …")

    def on_fit_start(self) -> None:
        """Weighs labels by how many training examples they have."""
        super().on_fit_start()
        if self.class_weights is None:
            return
        labels = cast("LabelCodec", self.target_codec).labels
        if isinstance(self.class_weights, str):
            if not isinstance(self.data, ClassificationData):
                raise ValueError("class_weights=balanced counts the labels of ClassificationData; give weights instead")
            counts = self.data.training_counts()
            total = sum(counts.values())
            weights = [total / (len(labels) * max(counts[label], 1)) for label in labels]
        else:
            weights = [self.class_weights[label] for label in labels]
        self._weights = torch.tensor(weights, device=self.device)

    def loss(self, batch: LabelledBatch, loader: str) -> Loss:
        """Summed nats (or half squared distances), without weights or smoothing."""
        return self._loss(self.network(batch.source, batch.lengths), batch.targets)

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        """The batch's share of the optimizer step's mean loss."""
        learned = partial(self._loss, smoothing=self.label_smoothing, weights=self._weights)
        if self.mixup:
            source, lengths, share, others = mixed(batch.source, batch.lengths, self.mixup)
            outputs = self.network(source, lengths)
            own, other = learned(outputs, batch.targets), learned(outputs, batch.targets[others])
            loss = Loss(share * own.total + (1 - share) * other.total, own.count)
        else:
            loss = learned(self.network(batch.source, batch.lengths), batch.targets)
        self.log_step("train/loss", loss.mean.detach(), prog_bar=True, batch_size=len(batch.lengths))
        return loss.total * batch.scale + self.penalty()

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        self._score(batch, ())

    def on_validation_epoch_end(self) -> None:
        self._conclude("validation")

    def test_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        self._score(batch, self.prefix_fractions)

    def on_test_epoch_end(self) -> None:
        found = self._conclude("test")
        if self.trainer.is_global_zero and found:
            self.report(found, Path(self.trainer.default_root_dir))

    def sample(self, generator: torch.Generator) -> str:
        """What was said about the first validation examples."""
        first = sorted(self.predictions, key=lambda prediction: prediction.example)[: self.num_samples]
        return "\n".join(self._line(prediction) for prediction in first)

    def report(self, found: Sequence[Prediction], folder: Path) -> None:
        """predictions.jsonl and, for one label of several, confusion.png, mistakes.md and early.png with early.csv."""
        codec = self.target_codec
        numbers = isinstance(codec, NumberCodec)
        names = codec.names if isinstance(codec, NumberCodec) else codec.labels
        lines = (
            json.dumps(scoring.as_row(o, names, numbers=numbers, multiple=not self.single), ensure_ascii=False)
            for o in found
        )
        write_text(folder / "predictions.jsonl", "".join(f"{line}\n" for line in lines))
        if not self.single:
            return
        counts = scoring.confusion(found)
        save_figure(folder / "confusion.png", scoring.draw_confusion(counts, names), dpi=110)
        wrong = scoring.mistakes(found, names, self.num_mistakes)
        head = ("source", "label", "answer", "its probability")
        page = (
            ["# The surest wrong answers", "", *table(head, wrong, digits=3)] if wrong else ["No answer was wrong.", ""]
        )
        write_text(folder / "mistakes.md", "\n".join(page))
        if self.prefix_fractions:
            accuracies = scoring.early_accuracy(found)
            chance = float(counts.sum(1).max() / counts.sum())
            save_figure(folder / "early.png", scoring.draw_early(self.prefix_fractions, accuracies, chance), dpi=110)
            write_rows(
                folder / "early.csv", [("share", "accuracy"), *zip(self.prefix_fractions, accuracies, strict=True)]
            )

    def _loss(self, outputs: Tensor, targets: Tensor, *, smoothing: float = 0.0, weights: Tensor | None = None) -> Loss:
        if self.single:
            logits, expected = outputs.unsqueeze(1), targets.unsqueeze(1)
            return cross_entropy(logits, expected, label_smoothing=smoothing, weights=weights)
        codec = self.target_codec
        if isinstance(codec, NumberCodec) and not codec.bounded:
            return squared_error(outputs, targets)
        if smoothing:
            targets = targets * (1 - smoothing) + 0.5 * smoothing
        return binary_cross_entropy(outputs, targets, weights)

    def _score(self, batch: LabelledBatch, shares: Sequence[float]) -> None:
        outputs = self.network(batch.source, batch.lengths)
        loss = self._loss(outputs, batch.targets)
        self.mean_loss.update(loss.mean, loss.count)
        said = predicted_values(outputs, self.target_codec).tolist()
        targets = batch.targets.reshape(len(outputs), -1).tolist()
        if isinstance(self.target_codec, NumberCodec):
            targets = [list(numbers) for numbers in batch.numbers]
        early: list[list[list[float]]] = [[] for _ in said]
        if shares:
            early = self.network.early(batch.source, batch.lengths, shares).tolist()
        rows = zip(batch.examples.tolist(), batch.shown, targets, said, early, strict=True)
        self.predictions.extend(Prediction(*row) for row in rows)

    def _conclude(self, split: str) -> list[Prediction]:
        """Logs a split's numbers; gives back all processes' predictions in the order of the examples."""
        self.log(f"{split}/loss", self.mean_loss.compute())
        self.mean_loss.reset()
        found, self.predictions = sorted(of_all_processes(self.predictions), key=lambda o: o.example), []
        if not found:
            return found
        if self.single:
            scores = scoring.label_scores(found)
        elif isinstance(self.target_codec, NumberCodec):
            scores = scoring.number_scores(found)
        else:
            scores = scoring.multilabel_scores(found)
        if self.prefix_fractions and split == "test":
            scores["early_accuracy"] = math.fsum(scoring.early_accuracy(found)) / len(self.prefix_fractions)
        monitor = str(getattr(self.trainer.checkpoint_callback, "monitor", None) or "")
        # Every process has scored all predictions: numbers that are equal everywhere need no broadcast.
        for name, value in scores.items():
            self.log(f"{split}/{name}", value, prog_bar=f"{split}/{name}" == monitor, rank_zero_only=False)
        return found

    def _line(self, prediction: Prediction) -> str:
        codec = self.target_codec
        shown = prediction.shown if len(prediction.shown) <= 80 else f"{prediction.shown[:79]}…"
        if isinstance(codec, NumberCodec):
            target, output = (codec.written(numbers, digits=4) for numbers in (prediction.target, prediction.output))
            pairs = zip(codec.names, target, output, strict=True)
            return f"{shown}: " + ", ".join(f"{name} {said} (it is {is_})" for name, is_, said in pairs)
        if codec.multiple:
            said = [i for i, sure in enumerate(prediction.output) if sure > 0.5]
            true = [i for i, there in enumerate(prediction.target) if there]
            return f"{shown}: {codec.decode(said) or 'none'} (it is {codec.decode(true) or 'none'})"
        answer = max(range(codec.size), key=prediction.output.__getitem__)
        right = "" if answer == int(prediction.target[0]) else f", but it is {codec.labels[int(prediction.target[0])]}"
        return f"{shown}: {codec.labels[answer]} at {prediction.output[answer]:.0%}{right}"


def _weights_by_label(given: Mapping[Any, float], codec: LabelCodec) -> dict[str, float]:
    weights = {str(label): float(weight) for label, weight in given.items()}
    for label in weights:
        codec.index(label)  # refuses one that there is not
    if min(weights.values(), default=0.0) < 0:
        raise ValueError(f"class_weights={weights}: 0 or more for each label, or balanced")
    return dict.fromkeys(codec.labels, 1.0) | weights
