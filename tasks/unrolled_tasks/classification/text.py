"""Sentences and longer texts, read as tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from unrolled.processing.text.base import Tokenizer
from unrolled.processing.transform import Transform
from unrolled.training.data.base import DataError
from unrolled.training.data.examples import Example
from unrolled.training.data.modalities import Modality
from unrolled.training.data.seq2seq import fit_tokenizer


class Text(Modality):
    """Sentences and longer texts, from tables.

    Args:
        unit: the unit of a token: "word" (words and punctuation), "character", "byte" or "subword".
        subwords: the subword model, "bpe" or "unigram".
        vocabulary_size: maximum number of words or subwords.
        min_count: training words with a smaller count are replaced by the unknown word.
        lowercase: convert text to lower case.
        max_length: maximum number of steps; longer texts are truncated. None for no limit.

    Raises:
        DataError: invalid options.
    """

    unit: ClassVar[str] = "token"
    reads: ClassVar[type] = Tokenizer
    data: ClassVar[str] = "sentences"

    def __init__(
        self,
        unit: str = "word",
        subwords: str = "bpe",
        vocabulary_size: int = 20000,
        min_count: int = 2,
        lowercase: bool = True,
        max_length: int | None = None,
    ) -> None:
        if unit not in ("word", "subword", "character", "byte") or subwords not in ("bpe", "unigram"):
            raise DataError(
                f"unit={unit!r} must be word, subword, character or byte, subwords={subwords!r} must be bpe or unigram"
            )
        if min(vocabulary_size, min_count, 1 if max_length is None else max_length) < 1:
            raise DataError(
                f"vocabulary_size={vocabulary_size}, min_count={min_count} and max_length={max_length} must be 1 or "
                "more"
            )
        self.symbols, self.subwords, self.vocabulary_size = unit, subwords, vocabulary_size
        self.min_count, self.lowercase, self.max_length = min_count, lowercase, max_length

    def options(self) -> dict[str, Any]:
        return {
            "unit": self.symbols,
            "subwords": self.subwords,
            "vocabulary_size": self.vocabulary_size,
            "min_count": self.min_count,
            "lowercase": self.lowercase,
            "max_length": self.max_length,
        }

    def open(self, example: Example) -> str:
        if not isinstance(example.source, str):
            raise ValueError(f"its source is {example.source!r:.80}, not a text")
        text = " ".join(example.source.split())
        if not text:
            raise ValueError("the text is empty")
        return text.lower() if self.lowercase else text

    def restore(self, transform: Transform) -> None:
        super().restore(transform)
        tokenizer = cast("Tokenizer", transform)
        self.lowercase, self.max_length = tokenizer.lowercase, tokenizer.max_length

    def fit(self, sources: Sequence[str]) -> Tokenizer:
        words = self.symbols == "word"
        return fit_tokenizer(
            cast("Any", _lines(sources)) if words else sources,
            "sentence" if words else self.symbols,
            size=self.vocabulary_size,
            subwords=self.subwords,
            min_count=self.min_count,
            lowercase=self.lowercase,
            max_length=self.max_length,
        )

    def read(self, source: str, extractor: Tokenizer) -> Tensor:
        ids = extractor.encode(source)
        if not ids:
            raise ValueError(f"the text {source!r:.80} contains no {extractor.unit}")
        return torch.tensor(ids)

    def display_name(self, example: Example, source: str) -> str:
        return source

    def example(self, example: Example, folder: Path) -> str | None:
        return " ".join(str(example.source).split())[:200]

    def describe(self, extractor: Tokenizer) -> str:
        return f"{extractor.size:,} {extractor.unit}s"


def _lines(texts: Sequence[str]) -> list[list[str]]:
    """Returns each text with a line end, so that no word spans two texts."""
    return [[text, "\n"] for text in texts]
