"""Tagging of words and of steps of series: parts of speech, named entities, activities."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from unrolled import (
    LabelSequenceEncoder,
    Processor,
    SpelledWordEmbedding,
    SpelledWords,
    WordTransform,
)
from unrolled.training.configuration.flat import flat_options
from unrolled.training.console.confusion import draw_confusion
from unrolled.training.console.markdown import table
from unrolled.training.console.outputs import save_figure, write_text
from unrolled.training.console.terminal import echo_command
from unrolled.training.tasks.evaluation import Scored
from unrolled.training.tasks.optimization import Optimization
from unrolled.training.tasks.tagger import TaggerTask
from unrolled.training.tasks.vectors import VectorOptions
from unrolled_tasks.tagging.data import TagBatch, TaggingData

_WORST = 30  # number of sentences in mistakes.md


class Tagged(NamedTuple):
    """The predicted tags of a sentence."""

    example: int
    words: list[str]
    tags: list[str]
    predicted: list[str]

    @property
    def mistakes(self) -> int:
        """Number of wrong tags."""
        return sum(one != other for one, other in zip(self.tags, self.predicted, strict=True))


class Tagging(TaggerTask):
    """Trains a network to predict a label for each word, or for each step of a series.

    Args:
        network: see `SequenceTask`.
        processor: see `SequenceTask`.
        optimization: see `SequenceTask`.
        embeddings: the initial embeddings of words.
    """

    files: ClassVar[Mapping[str, str]] = {
        "tagged.txt": "a line for each word of the test: the word, its tag, the predicted one",
        "confusion.png": "confusion matrix of the tags",
        "mistakes.md": "the sentences with the most mistakes",
    }
    progress_metrics = ("accuracy",)

    @flat_options
    def __init__(
        self,
        network: Mapping[str, Any],
        processor: Processor,
        optimization: Optimization = Optimization(),
        embeddings: VectorOptions = VectorOptions(),
    ) -> None:
        super().__init__(network=network, processor=processor, optimization=optimization)
        self._embeddings = embeddings
        self._embeddings.freeze(self._words)

    @property
    def _words(self) -> Any:
        """The embedding of words, beside that of their characters if they are spelled."""
        embedding: Any = self.network.encoder.embedding
        return embedding.words if isinstance(embedding, SpelledWordEmbedding) else embedding

    def load_pretrained(self) -> None:
        """Initializes the embeddings with word vectors."""
        source: Any = self.processor.source
        if isinstance(source, WordTransform):
            tokenizer = source.words if isinstance(source, SpelledWords) else cast("Any", source).tokenizer
            self.notes |= self._embeddings.load(tokenizer, self._words)

    @property
    def labels(self) -> list[str]:
        """The tags, in the order of their ids."""
        return cast("LabelSequenceEncoder", self.processor.target).labels

    def score(self, batch: TagBatch, loader: str) -> Scored:
        """Returns loss and accuracy, and the tags of each sentence."""
        parameters, mask = self.predict(batch)
        loss, predicted = self.network.head.loss(parameters, batch.targets, mask), self.network.head.predict(parameters)
        right = ((predicted == batch.targets) & mask).sum()
        names = self.labels
        rows = [
            Tagged(example, sentence.words[:n], sentence.tags[:n], [names[index] for index in ids[:n]])
            for example, sentence, n, ids in zip(
                batch.examples.tolist(), batch.sentences, batch.predictions.tolist(), predicted.tolist(), strict=True
            )
        ]
        return Scored({"loss": loss, "accuracy": (right, loss.count)}, rows)

    def scores(self, means: Mapping[str, float], rows: Sequence[Tagged]) -> dict[str, float]:
        """Returns loss and accuracy and, for tags such as B-PER and I-PER, precision, recall and F1 of spans."""
        spans = sorted({label[2:] for label in self.labels if label[:2] in ("B-", "I-")})
        if not spans or not rows:
            return dict(means)
        from nervaluate import Evaluator

        true, predicted = [row.tags for row in rows], [row.predicted for row in rows]
        exact: Any = Evaluator(true, predicted, tags=spans, loader="list").evaluate()["overall"]["strict"]
        return {**means, "precision": exact.precision, "recall": exact.recall, "span_f1": exact.f1}

    def sample(self, generator: torch.Generator) -> str:
        """Returns the first validation sentences with their predicted tags; after ≠ the right one."""
        return "\n".join(_line(row) for row in cast("list[Tagged]", self.evaluation.rows[:6]))

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Returns a command that tags."""
        if not isinstance(self.processor.source, WordTransform):  # not supported by the command
            return ()
        return (f"{echo_command(self.example() or 'It rains .')} | python -m unrolled tag {checkpoint}",)

    def report(self, rows: Sequence[Tagged], folder: Path) -> None:
        """Writes tagged.txt, confusion.png and mistakes.md."""
        lines = (
            "\n".join("\t".join(each) for each in zip(row.words, row.tags, row.predicted, strict=True)) for row in rows
        )
        write_text(folder / "tagged.txt", "".join(f"{sentence}\n\n" for sentence in lines))
        ids = {label: index for index, label in enumerate(self.labels)}
        true, predicted = (
            torch.tensor([ids[tag] for row in rows for tag in getattr(row, side)]) for side in ("tags", "predicted")
        )
        counts = multiclass_confusion_matrix(predicted, true, len(ids))
        save_figure(folder / "confusion.png", draw_confusion(counts, self.labels), dpi=110)
        worst = sorted((row for row in rows if row.mistakes), key=lambda row: (-row.mistakes, row.example))[:_WORST]
        cells = [(row.mistakes, len(row.words), _line(row)) for row in worst]
        page = ["# The sentences with the most mistakes", "", *table(("mistakes", "words", "sentence"), cells)]
        write_text(folder / "mistakes.md", "\n".join(page if worst else ["All tags are correct.", ""]))
        if self.fit_started and isinstance(self.data, TaggingData):
            self.notes |= _baseline(rows, *self.data.most_frequent_tags())


def _baseline(rows: Sequence[Tagged], tags: Mapping[str, str], unknown: str) -> dict[str, str | float]:
    """Returns the accuracy of each word's most frequent tag in training, without a look at other words."""
    pairs = [pair for row in rows for pair in zip(row.words, row.tags, strict=True)]
    right = sum(tags.get(word, unknown) == tag for word, tag in pairs)
    return {"baseline/accuracy": right / len(pairs), "baseline": f"each word's most frequent tag; {unknown} for others"}


def _line(row: Tagged) -> str:
    pairs = zip(row.words, row.predicted, row.tags, strict=True)
    return " ".join(f"{word}/{tag}" if tag == true else f"{word}/{tag}≠{true}" for word, tag, true in pairs)
