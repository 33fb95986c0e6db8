"""Words that stand between blanks: for text that is already cut into words, such as captions."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from unrolled.processing.text.base import UNKNOWN, Codec, numbered
from unrolled.wording import counted

_BLANKS = re.compile(r"\s+")


class SpacedTokenizer(Codec):
    """One id per word: 0 is <start>, 1 is <unknown>, then the words given. Decoding puts one space between two words.

    `WordTokenizer` keeps blanks and punctuation and gives every text back as it was; here blanks only separate words,
    so a text has as many ids as words.

    Args:
        words: the alphabet, each word once, without blanks.

    Raises:
        ValueError: no word, one given twice, or one with a blank.
    """

    unit = "word"
    start = 0
    unknown = UNKNOWN

    def __init__(self, words: Sequence[str]) -> None:
        self._ids = numbered("words", words)
        wrong = next((word for word in words if word.split() != [word]), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is no word: words stand between blanks")
        self.words = list(words)
        self._symbols = ["", "<unknown>", *words]
        self.size = len(self._symbols)

    @classmethod
    def train(cls, texts: Iterable[str], *, min_count: int = 1, max_size: int | None = None) -> Self:
        """The words of these texts, the most frequent first.

        Args:
            texts: of the training split alone.
            min_count: words seen less often are left out.
            max_size: how many words are kept at most.

        Raises:
            ValueError: a bound below one, or no word as frequent as min_count.
        """
        if min_count < 1 or (max_size is not None and max_size < 1):
            raise ValueError(f"min_count={min_count} and max_size={max_size} are 1 or more")
        counts = Counter(word for text in texts for word in text.split())
        kept = sorted((w for w, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        if not kept:
            raise ValueError(
                f"no word is seen min_count={min_count} times; "
                f"the most frequent is seen {counted(max(counts.values(), default=0), 'time')}"
            )
        return cls(kept[:max_size])

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        held: list[str] = []  # the parts of the last word, joined once, however long it gets
        for piece in pieces:
            first, *rest = _BLANKS.split(piece)
            held.append(first)
            if rest:
                *whole, last = rest
                yield [self._ids.get(word, UNKNOWN) for word in ("".join(held), *whole) if word]
                held = [last]
        if word := "".join(held):
            yield [self._ids.get(word, UNKNOWN)]

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join(self._symbols[index] for index in self._checked(ids) if index != self.start)

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": "unrolled.SpacedTokenizer", "words": list(self.words)}
