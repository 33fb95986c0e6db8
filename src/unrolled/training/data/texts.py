"""Data for tasks that write: texts about sources, encoded once, in batches of similar length."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.processing.text.base import Codec
from unrolled.processing.text.spaced import SpacedCodec
from unrolled.processing.text.tokenizers import CharacterCodec, WordCodec
from unrolled.training.data.base import PARTS, DataError, SequenceData
from unrolled.training.data.buckets import BucketLoader, BucketPlan, Ints
from unrolled.training.data.subwords import train_subwords
from unrolled.training.data.tokens import Tokens

B = TypeVar("B")
T = TypeVar("T")


class Examples(NamedTuple):
    """What a plan of batches has to know of a part."""

    lengths: Sequence[Sequence[int]] | Ints  # (examples, sides), the written side last
    counts: Sequence[int] | Ints  # (examples,) predictions of each


class Taught(NamedTuple):
    """Texts as a decoder is taught them."""

    inputs: Tensor  # (batch, time) int64: the start symbol, then the text
    targets: Tensor  # (batch, time) int64: the text, then the stop symbol
    lengths: Tensor  # (batch,): tokens of the text and its stop symbol


class WritingData(SequenceData, Generic[B]):
    """Examples of texts in batches of similar length: shuffled for training, in a fixed order to be scored.

    A subclass sets `batch_tokens` and `seed` and says what the examples of a part are, and what a batch of them holds.
    """

    batch_tokens: int
    seed: int

    @abstractmethod
    def examples(self, part: str, *, scored: bool) -> Examples:
        """The examples of a part, those that it is trained on or those that are scored."""

    @abstractmethod
    def batch(self, part: str, rows: Ints, scale: float, *, scored: bool) -> B:
        """These examples."""

    def train_dataloader(self) -> BucketLoader[B]:
        """One process's batches of the training part."""
        if "train" not in self.parts():
            raise DataError("there are no training examples")
        return self._loader("train", scored=False, restart=self.repeated, accumulate=self.accumulate, limit=self.limit)

    def val_dataloader(self) -> BucketLoader[B] | list[Any]:
        """The validation part, from long to short; nothing if there is none."""
        return self._loader("validation", scored=True, restart=True) if "validation" in self.parts() else []

    def test_dataloader(self) -> BucketLoader[B] | list[Any]:
        """The part to be scored."""
        return self._loader(self.scored_part, scored=True, restart=True) if self.scored_part in self.parts() else []

    def _loader(self, part: str, *, scored: bool, **options: Any) -> BucketLoader[B]:
        examples = self.examples(part, scored=scored)
        plan = BucketPlan(
            examples.lengths,
            batch_tokens=self.batch_tokens,
            ranks=self.ranks,
            counts=examples.counts,
            shuffle=not scored,
            seed=self.seed,
        )

        def collate(rows: Ints, scale: float) -> B:
            return self.batch(part, rows, scale, scored=scored)

        return BucketLoader(plan, collate, rank=self.rank, **options)


def taught(texts: Sequence[Tensor], start: int) -> Taught:
    """Texts, the ids of each, as inputs and targets around the symbol that begins and ends a text."""
    border = torch.tensor([start])
    return Taught(
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
        texts: of the training part alone; they may be read twice.
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
        return SpacedCodec.train(texts, min_count=min_count, max_size=size)
    return CharacterCodec.train(texts) if unit == "character" else WordCodec.train(texts, max_size=size)


def only_one(what: str, given: Mapping[str, Any]) -> str:
    """The name of the one option that is given.

    Raises:
        DataError: none or several are.
    """
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise DataError(f"{what} come from one of {', '.join(given)}; {' and '.join(chosen) or 'none'} was given")
    return chosen[0]


def check_cut(cut: Sequence[float]) -> None:
    """Looks whether these are shares of training, validation and test.

    Raises:
        DataError: they are not.
    """
    if len(cut) != 3 or min(cut) < 0 or abs(sum(cut) - 1) > 1e-6:
        raise DataError(f"cut={list(cut)}: fractions for training, validation and test that add up to 1")


def cut_parts(parts: Mapping[str, Sequence[T]], cut: Sequence[float]) -> dict[str, list[T]]:
    """Parts without examples of their own are taken from the end of the training examples."""
    cut_up = {part: list(examples) for part, examples in parts.items()}
    whole = len(cut_up["train"])
    for part, share in zip(PARTS[:0:-1], list(cut)[:0:-1], strict=True):
        if part not in cut_up:
            left = max(0, len(cut_up["train"]) - round(whole * share))
            cut_up["train"], cut_up[part] = cut_up["train"][:left], cut_up["train"][left:]
    return {part: cut_up[part] for part in PARTS if cut_up.get(part)}


def left_out(dropped: Mapping[str, int]) -> str:
    """What a description says of examples that were left out; nothing where there are none."""
    said = ", ".join(f"{count:,} {why}" for why, count in dropped.items() if count)
    return f"; left out: {said}" if said else ""


def share_of(name: str, shares: Sequence[float]) -> str:
    """The part that a name falls into, always the same: "train", "validation" or "test" in these shares."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
    return "train" if place < shares[0] else "validation" if place < shares[0] + shares[1] else "test"
