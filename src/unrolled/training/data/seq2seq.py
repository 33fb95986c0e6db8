"""Data of sequence-to-sequence tasks: encoded texts in batches of similar length."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.spaced import SpacedTokenizer
from unrolled.processing.text.tokenizers import ByteTokenizer, CharacterTokenizer, SentenceTokenizer, WordTokenizer
from unrolled.training.data.buckets import Ints
from unrolled.training.data.subwords import train_subwords
from unrolled.training.data.tokens import Tokens

_WORDS = {"word": WordTokenizer, "sentence": SentenceTokenizer, "spaced": SpacedTokenizer}
_SYMBOLS = {"character": CharacterTokenizer, "byte": ByteTokenizer}

T = TypeVar("T")


class TeacherForcingBatch(NamedTuple):
    """Inputs and targets of a decoder with teacher forcing."""

    inputs: Tensor  # (batch, time) int64: the start symbol, then the text
    targets: Tensor  # (batch, time) int64: the text, then the stop symbol
    lengths: Tensor  # (batch,): tokens of the text and its stop symbol


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
