"""Transforms of texts that are given as lists of words, for one prediction per word."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.spaced import SpacedTokenizer
from unrolled.processing.text.tokenizers import CharacterTokenizer
from unrolled.processing.transform import Transform

if TYPE_CHECKING:
    from torch import Tensor


class WordTransform(Transform):
    """Base class of transforms of lists of words, such as ["It", "rains", "."]."""

    @abstractmethod
    def encode_words(self, words: Sequence[str]) -> tuple[Any, list[int]]:
        """Return the encoded words, and for each word the step of the network that predicts for it.

        Raises:
            ValueError: a word that is empty or contains white space.
        """

    def encode(self, value: Sequence[str]) -> Any:
        """Return the encoded words alone."""
        return self.encode_words(value)[0]


class TokenizedWords(WordTransform):
    """Words as the tokens of a tokenizer: whole words, or their subwords, bytes or characters one after another.

    Args:
        tokenizer: the tokenizer.

    Raises:
        ValueError: not a tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if not isinstance(tokenizer, Tokenizer):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
            raise ValueError(f"tokenizer={tokenizer!r:.80}: expected a Tokenizer")
        self.tokenizer = tokenizer
        self.size = tokenizer.size

    def encode_words(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """See `Tokenizer.encode_words`."""
        return self.tokenizer.encode_words(words)

    def decode(self, encoded: Iterable[int], given: Sequence[str] | None = None) -> list[str]:
        """Return the words of ids.

        Args:
            encoded: ids of these words.
            given: the words that were encoded, which tell where each one begins.

        Raises:
            ValueError: no words are given.
        """
        if given is None:
            raise ValueError("the ids don't tell where words begin: pass the words that were encoded as `given`")
        ids, (_, starts) = list(encoded), self.encode_words(given)
        return [self.tokenizer.decode(ids[begin:end]).strip() for begin, end in pairwise([*starts, len(ids)])]

    def normalize(self, value: Sequence[str]) -> list[str]:
        """Return the words as far as the tokenizer knows them."""
        return self.decode(self.encode(value), value)

    def collate(self, encoded: Sequence[Sequence[int]]) -> "tuple[Tensor, Tensor]":
        """Return ids (batch, time), padded with 0, and lengths."""
        return self.tokenizer.collate(encoded)

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": "unrolled.TokenizedWords", "tokenizer": self.tokenizer.to_dict()}


class SpelledWords(WordTransform):
    """Each word as its id and the ids of its characters, for a network that reads both (Lample et al. 2016).

    Args:
        words: the tokenizer of words.
        characters: the tokenizer of characters, which is independent of that of words in its case.
        max_characters: maximum number of characters of a word; the middle of longer words is left out.

    Raises:
        ValueError: other tokenizers, a maximum below 2.
    """

    def __init__(self, words: SpacedTokenizer, characters: CharacterTokenizer, max_characters: int = 24) -> None:
        if not isinstance(words, SpacedTokenizer) or not isinstance(characters, CharacterTokenizer):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
            raise ValueError(
                f"words={words!r:.80} must be a SpacedTokenizer, characters={characters!r:.80} a CharacterTokenizer"
            )
        if max_characters < 2:
            raise ValueError(f"max_characters={max_characters}: expected 2 or more")
        self.words, self.characters, self.max_characters = words, characters, max_characters
        self.size, self.alphabet_size = words.size, characters.size

    @classmethod
    def fit(
        cls,
        texts: Iterable[Sequence[str]],
        *,
        min_count: int = 2,
        max_size: int | None = None,
        lowercase: bool = True,
        max_characters: int = 24,
    ) -> Self:
        """Create a transform with the words and characters of some texts.

        Args:
            texts: lists of words of the training split.
            min_count: minimum frequency of a word; with 2, words that occur once train the unknown word.
            max_size: maximum number of words; None for no limit.
            lowercase: whether words, but not their characters, are read in lower case.
            max_characters: see the class.

        Raises:
            ValueError: a bound below one, or no word with a frequency of min_count.
        """
        joined = [" ".join(text) for text in texts]
        words = SpacedTokenizer.fit(joined, min_count=min_count, max_size=max_size, lowercase=lowercase)
        return cls(words, CharacterTokenizer.fit(joined), max_characters)

    def encode_words(self, words: Sequence[str]) -> "tuple[Tensor, list[int]]":
        """Return (words, 1 + characters) int64, the id of each word before its characters, padded with 0."""
        import torch

        ids, starts = self.words.encode_words(words)
        spelled = [self.characters.encode(self._shortened(word)) for word in words[: len(starts)]]
        rows = torch.zeros(len(ids), 1 + max(map(len, spelled), default=0), dtype=torch.int64)
        for row, (index, letters) in enumerate(zip(ids, spelled, strict=True)):
            rows[row, : 1 + len(letters)] = torch.tensor([index, *letters])
        return rows, starts

    def _shortened(self, word: str) -> str:
        half = self.max_characters // 2
        return word if len(word) <= self.max_characters else word[: self.max_characters - half] + word[-half:]

    def collate(self, encoded: "Sequence[Tensor]") -> "tuple[Tensor, Tensor]":
        """Return (batch, words, 1 + characters), padded with 0, and the numbers of words."""
        import torch

        lengths = torch.tensor([len(rows) for rows in encoded])
        shape = (max((len(rows) for rows in encoded), default=0), max((rows.shape[1] for rows in encoded), default=1))
        padded = torch.zeros(len(encoded), *shape, dtype=torch.int64)
        for row, rows in enumerate(encoded):
            padded[row, : len(rows), : rows.shape[1]] = rows
        return padded, lengths

    def to_dict(self) -> dict[str, Any]:
        return {
            "_target_": "unrolled.SpelledWords",
            "words": self.words.to_dict(),
            "characters": self.characters.to_dict(),
            "max_characters": self.max_characters,
        }
