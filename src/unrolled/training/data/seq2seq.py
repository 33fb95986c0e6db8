"""Data for tasks that write: texts about sources, encoded once, in batches of similar length."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.processing.text.base import Codec
from unrolled.processing.text.spaced import SpacedTokenizer
from unrolled.processing.text.tokenizers import CharacterTokenizer, WordTokenizer
from unrolled.training.data.base import SPLITS, DataError, SequenceData
from unrolled.training.data.buckets import BucketLoader, BucketPlan, Ints
from unrolled.training.data.subwords import train_subwords
from unrolled.training.data.tokens import Tokens

B = TypeVar("B")
T = TypeVar("T")


class Examples(NamedTuple):
    """What a plan of batches has to know of a split."""

    lengths: Sequence[Sequence[int]] | Ints  # (examples, sides), the written side last
    counts: Sequence[int] | Ints  # (examples,) predictions of each


class TeacherForcingBatch(NamedTuple):
    """Texts as a decoder reads and predicts them under teacher forcing."""

    inputs: Tensor  # (batch, time) int64: the start symbol, then the text
    targets: Tensor  # (batch, time) int64: the text, then the stop symbol
    lengths: Tensor  # (batch,): tokens of the text and its stop symbol


class Seq2SeqData(SequenceData, Generic[B]):
    """Examples of texts in batches of similar length: shuffled for training, in a fixed order to be scored.

    A subclass sets `batch_tokens` and `seed` and says what the examples of a split are, and what a batch of them holds.
    """

    batch_tokens: int
    seed: int

    @abstractmethod
    def examples(self, split: str, *, scored: bool) -> Examples:
        """The examples of a split, those that it is trained on or those that are scored."""

    @abstractmethod
    def batch(self, split: str, rows: Ints, scale: float, *, scored: bool) -> B:
        """These examples."""

    def train_dataloader(self) -> BucketLoader[B]:
        """One process's batches of the training split."""
        if "train" not in self.splits():
            raise DataError("there are no training examples")
        return self._loader("train", scored=False, restart=self.repeated, accumulate=self.accumulate, limit=self.limit)

    def val_dataloader(self) -> BucketLoader[B] | list[Any]:
        """The validation split, from long to short; nothing if there is none."""
        return self._loader("validation", scored=True, restart=True) if "validation" in self.splits() else []

    def test_dataloader(self) -> BucketLoader[B] | list[Any]:
        """The split to be scored."""
        return (
            self._loader(self.evaluated_split, scored=True, restart=True)
            if self.evaluated_split in self.splits()
            else []
        )

    def _loader(self, split: str, *, scored: bool, **options: Any) -> BucketLoader[B]:
        examples = self.examples(split, scored=scored)
        plan = BucketPlan(
            examples.lengths,
            batch_tokens=self.batch_tokens,
            ranks=self.ranks,
            counts=examples.counts,
            shuffle=not scored,
            seed=self.seed,
        )

        def collate(rows: Ints, scale: float) -> B:
            return self.batch(split, rows, scale, scored=scored)

        return BucketLoader(plan, collate, rank=self.rank, **options)


def teacher_forcing_batch(texts: Sequence[Tensor], start: int) -> TeacherForcingBatch:
    """Texts, the ids of each, as inputs and targets around the symbol that begins and ends a text."""
    border = torch.tensor([start])
    return TeacherForcingBatch(
        inputs=pad_sequence([torch.cat([border, row]) for row in texts], batch_first=True),
        targets=pad_sequence([torch.cat([row, border]) for row in texts], batch_first=True),
        lengths=torch.tensor([len(row) + 1 for row in texts]),
    )


def documents(tokens: Tokens, rows: Ints) -> list[Tensor]:
    """The ids of these documents."""
    return [tokens.read(int(tokens.documents[row]), int(tokens.documents[row + 1])) for row in rows.tolist()]


def trained_codec(texts: Iterable[str], unit: str, *, size: int, subwords: str = "bpe", min_count: int = 1) -> Codec:
    """A codec of the training texts' own alphabet.

    Args:
        texts: of the training split alone; they may be read twice.
        unit: "subword", "character", "word", or "spaced" for words between blanks.
        size: of subwords and words, at most.
        subwords: how they are found: "bpe" or "unigram".
        min_count: rarer spaced words are left out.

    Raises:
        ValueError: a unit that there is not, or texts without any.
    """
    if unit == "subword":
        return train_subwords(texts, size, kind=subwords)
    if unit == "spaced":
        return SpacedTokenizer.train(texts, min_count=min_count, max_size=size)
    return CharacterTokenizer.train(texts) if unit == "character" else WordTokenizer.train(texts, max_size=size)


def only_one(what: str, given: Mapping[str, Any]) -> str:
    """The name of the one option that is given.

    Raises:
        DataError: none or several are.
    """
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise DataError(f"{what} come from one of {', '.join(given)}; {' and '.join(chosen) or 'none'} was given")
    return chosen[0]


def check_fractions(split_fractions: Sequence[float]) -> None:
    """Looks whether these are shares of training, validation and test.

    Raises:
        DataError: they are not.
    """
    if len(split_fractions) != 3 or min(split_fractions) < 0 or abs(sum(split_fractions) - 1) > 1e-6:
        raise DataError(
            f"split_fractions={list(split_fractions)}: fractions for training, validation and test that add up to 1"
        )


def split_examples(splits: Mapping[str, Sequence[T]], split_fractions: Sequence[float]) -> dict[str, list[T]]:
    """Parts without examples of their own are taken from the end of the training examples."""
    cut_up = {split: list(examples) for split, examples in splits.items()}
    whole = len(cut_up["train"])
    for split, share in zip(SPLITS[:0:-1], list(split_fractions)[:0:-1], strict=True):
        if split not in cut_up:
            left = max(0, len(cut_up["train"]) - round(whole * share))
            cut_up["train"], cut_up[split] = cut_up["train"][:left], cut_up["train"][left:]
    return {split: cut_up[split] for split in SPLITS if cut_up.get(split)}


def left_out(dropped: Mapping[str, int]) -> str:
    """What a description says of examples that were left out; nothing where there are none."""
    said = ", ".join(f"{count:,} {why}" for why, count in dropped.items() if count)
    return f"; left out: {said}" if said else ""


def share_of(name: str, shares: Sequence[float]) -> str:
    """The split that a name falls into, always the same: "train", "validation" or "test" in these shares."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
    return "train" if place < shares[0] else "validation" if place < shares[0] + shares[1] else "test"
