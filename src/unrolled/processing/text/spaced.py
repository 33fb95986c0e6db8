"""A tokenizer that splits at white space, for text that is already tokenized, such as captions."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from unrolled.processing.text.base import UNKNOWN, Tokenizer, numbered
from unrolled.wording import counted

_BLANKS = re.compile(r"\s+")


class SpacedTokenizer(Tokenizer):
    """Splits text at white space, with one id per word: 0 is <start>, 1 is <unknown>, followed by the words.

    Decoding joins words with one space. Unlike `WordTokenizer`, it doesn't preserve white space, so a text has as many
    ids as words.

    Args:
        words: the vocabulary, without duplicates and white space.
        lowercase: see `Tokenizer`.
        max_length: see `Tokenizer`.

    Raises:
        ValueError: no words, duplicates, or a word with white space.
    """

    unit = "word"
    start = 0
    unknown = UNKNOWN
    pattern = r"\S+"
    joined = " "

    def __init__(self, words: Sequence[str], lowercase: bool = False, max_length: int | None = None) -> None:
        super().__init__(lowercase, max_length)
        self._ids = numbered("words", words)
        wrong = next((word for word in words if word.split() != [word]), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is not a word: words have no white space")
        self.words = list(words)
        self._symbols = ["", "<unknown>", *words]
        self.size = len(self._symbols)

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        lowercase: bool = False,
        max_length: int | None = None,
    ) -> Self:
        """Create a tokenizer with the words of some texts, the most frequent first.

        Args:
            texts: texts of the training split.
            min_count: minimum frequency of a word.
            max_size: maximum number of words; None for no limit.
            lowercase: see `Tokenizer`; words are then counted in lower case.
            max_length: see `Tokenizer`.

        Raises:
            ValueError: a bound below one, or no word with a frequency of min_count.
        """
        if min_count < 1 or (max_size is not None and max_size < 1):
            raise ValueError(f"min_count={min_count}, max_size={max_size}: expected 1 or more")
        counts = Counter(word for text in texts for word in (text.lower() if lowercase else text).split())
        kept = sorted((w for w, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        if not kept:
            raise ValueError(
                f"no word occurs min_count={min_count} times; "
                f"the most frequent occurs {counted(max(counts.values(), default=0), 'time')}"
            )
        return cls(kept[:max_size], lowercase, max_length)

    def _ids_of(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        held: list[str] = []  # parts of the last word, joined only once
        for piece in pieces:
            first, *rest = _BLANKS.split(piece)
            held.append(first)
            if rest:
                *whole, last = rest
                yield [self._ids.get(word, UNKNOWN) for word in ("".join(held), *whole) if word]
                held = [last]
        if word := "".join(held):
            yield [self._ids.get(word, UNKNOWN)]

    def decode(self, encoded: Iterable[int], given: str | None = None) -> str:
        return self.joined.join(self._symbols[index] for index in self._checked(encoded) if index != self.start)

    def normalize(self, value: str) -> str:
        """Return the text with unknown words replaced and single spaces, truncated to `max_length` words."""
        words = self._cased(value).split()[: self.max_length]
        return " ".join(word if word in self._ids else self._symbols[UNKNOWN] for word in words)

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": "unrolled.SpacedTokenizer", "words": list(self.words), **self._options()}
