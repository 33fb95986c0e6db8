"""Data of sequence-to-sequence tasks: encoded texts in batches of similar length."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.spaced import SpacedTokenizer
from unrolled.processing.text.tokenizers import ByteTokenizer, CharacterTokenizer, SentenceTokenizer, WordTokenizer
from unrolled.training.data.base import DataError, SequenceData
from unrolled.training.data.buckets import BatchSpec, BucketPlan, Ints
from unrolled.training.data.loader import PlannedLoader
from unrolled.training.data.options import Batching
from unrolled.training.data.subwords import train_subwords
from unrolled.training.data.tokens import Tokens

_WORDS = {"word": WordTokenizer, "sentence": SentenceTokenizer, "spaced": SpacedTokenizer}
_SYMBOLS = {"character": CharacterTokenizer, "byte": ByteTokenizer}

B = TypeVar("B")
T = TypeVar("T")
Loader = PlannedLoader[str, BatchSpec, B]  # of the split with this name


class Examples(NamedTuple):
    """Lengths and numbers of predictions of a split's examples, for a `BucketPlan`."""

    lengths: Sequence[Sequence[int]] | Ints  # (examples, sides), the target last
    counts: Sequence[int] | Ints  # (examples,) number of predictions of each


class TeacherForcingBatch(NamedTuple):
    """Inputs and targets of a decoder with teacher forcing."""

    inputs: Tensor  # (batch, time) int64: the start symbol, then the text
    targets: Tensor  # (batch, time) int64: the text, then the stop symbol
    lengths: Tensor  # (batch,): tokens of the text and its stop symbol


class Seq2SeqData(SequenceData, Generic[B]):
    """Loads texts in batches of similar length: shuffled for training, in a fixed order for scoring.

    A subclass sets `batching` and implements `examples` and `batch`.
    """

    batching: Batching

    @abstractmethod
    def examples(self, split: str, *, scored: bool) -> Examples:
        """Returns the lengths of a split's examples, for training or for scoring."""

    @abstractmethod
    def batch(self, split: str, spec: BatchSpec, scale: float, *, scored: bool) -> B:
        """Builds a batch of these examples.

        Args:
            split: name of the split.
            spec: indices of the examples, and the epoch.
            scale: factor of the summed loss.
            scored: whether the batch is for scoring instead of training.
        """

    def train_dataloader(self) -> Loader[B]:
        """Returns the loader of one process's training batches."""
        if "train" not in self.splits():
            raise DataError("there are no training examples")
        return self._loader("train", scored=False, restart=self.repeated, accumulate=self.accumulate, limit=self.limit)

    def val_dataloader(self) -> Loader[B] | list[Any]:
        """Returns the loader of the validation split, in order of decreasing length; an empty list without one."""
        return self._loader("validation", scored=True, restart=True) if "validation" in self.splits() else []

    def test_dataloader(self) -> Loader[B] | list[Any]:
        """Returns the loader of the evaluated split; an empty list without one."""
        return (
            self._loader(self.evaluated_split, scored=True, restart=True)
            if self.evaluated_split in self.splits()
            else []
        )

    def _loader(self, split: str, *, scored: bool, **options: Any) -> Loader[B]:
        examples = self.examples(split, scored=scored)
        plan = BucketPlan(
            examples.lengths,
            batch_tokens=self.batching.batch_tokens,
            batch_size=self.batching.batch_size,
            ranks=self.ranks,
            counts=examples.counts,
            shuffle=not scored,
            seed=self.batching.seed,
        )
        return PlannedLoader(
            plan, split, partial(self.batch, scored=scored), rank=self.rank, workers=self.batching.workers, **options
        )


def teacher_forcing_batch(texts: Sequence[Tensor], start: int) -> TeacherForcingBatch:
    """Builds inputs and targets from the ids of texts.

    Args:
        texts: the ids of each text.
        start: id of the symbol that begins and ends a text.
    """
    border = torch.tensor([start])
    return TeacherForcingBatch(
        inputs=pad_sequence([torch.cat([border, row]) for row in texts], batch_first=True),
        targets=pad_sequence([torch.cat([row, border]) for row in texts], batch_first=True),
        lengths=torch.tensor([len(row) + 1 for row in texts]),
    )


def documents(tokens: Tokens, rows: Ints) -> list[Tensor]:
    """Returns the ids of these documents."""
    return [tokens.read(int(tokens.documents[row]), int(tokens.documents[row + 1])) for row in rows.tolist()]


def fit_tokenizer(
    texts: Iterable[str],
    unit: str,
    *,
    size: int,
    subwords: str = "bpe",
    min_count: int = 1,
    lowercase: bool = False,
    max_length: int | None = None,
) -> Tokenizer:
    """Fits a tokenizer to the training texts.

    Args:
        texts: the texts of the training split alone; they may be iterated twice.
        unit: "subword", "character", "byte", "word" (with blanks as tokens), "sentence" (words and
            punctuation without blanks), or "spaced" (words between blanks).
        size: maximum number of subwords or words.
        subwords: the subword model, "bpe" or "unigram".
        min_count: words with a smaller count are unknown.
        lowercase: see `Tokenizer`.
        max_length: see `Tokenizer`.

    Raises:
        ValueError: an unknown unit, or empty texts.
    """
    options: dict[str, Any] = {"lowercase": lowercase, "max_length": max_length}
    if unit == "subword":
        return train_subwords(texts, size, kind=subwords, **options)
    if unit in _WORDS:
        return _WORDS[unit].fit(texts, min_count=min_count, max_size=size, **options)
    if unit not in _SYMBOLS:
        raise ValueError(f"unit={unit!r} is one of subword, {', '.join([*_WORDS, *_SYMBOLS])}")
    return _SYMBOLS[unit].fit(texts, **options)


def describe_dropped(dropped: Mapping[str, int]) -> str:
    """Returns the part of a description about dropped examples; empty if there are none."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
    return f"; dropped: {counts}" if counts else ""
