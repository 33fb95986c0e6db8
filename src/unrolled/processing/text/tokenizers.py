"""Tokenizers of characters, bytes and words, whose vocabulary is counted in a text."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Self

from unrolled.processing.text.base import UNKNOWN, Tokenizer, numbered
from unrolled.wording import counted

_MODULE = "unrolled"  # the module in checkpoints, independent of where the classes are defined


class CharacterTokenizer(Tokenizer):
    """Tokenizes text into characters: 0 is <start>, 1 is <unknown>, followed by the characters.

    An unknown character decodes to U+FFFD, the Unicode replacement character.

    Args:
        characters: the vocabulary as one string, without duplicates.
        lowercase: see `Tokenizer`.
        max_length: see `Tokenizer`.

    Raises:
        ValueError: no characters, or duplicates.
    """

    unit = "character"
    start = 0
    unknown = UNKNOWN
    pattern = r"(?s)."

    def __init__(self, characters: str, lowercase: bool = False, max_length: int | None = None) -> None:
        super().__init__(lowercase, max_length)
        self._ids = numbered("characters", characters)
        self._symbols = ["", "\N{REPLACEMENT CHARACTER}", *characters]
        self.characters = characters
        self.size = len(self._symbols)

    @classmethod
    def fit(
        cls, texts: Iterable[str | Iterable[str]], *, lowercase: bool = False, max_length: int | None = None
    ) -> Self:
        """Create a tokenizer with the characters of some texts, each a string or an iterable of pieces.

        Raises:
            ValueError: an empty text.
        """
        seen: set[str] = set()
        for text in texts:
            for piece in _pieces(text, lowercase):
                seen.update(piece)
        if not seen:
            raise ValueError("cannot fit a tokenizer to an empty text")
        return cls("".join(sorted(seen)), lowercase, max_length)

    def settled(self, text: str) -> int:
        """Return the length of the text: each character is a token."""
        return len(text)

    def _ids_of(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        ids = self._ids
        return ([ids.get(character, UNKNOWN) for character in piece] for piece in pieces)

    def decode(self, encoded: Iterable[int], given: str | None = None) -> str:
        return "".join(self._symbols[index] for index in self._checked(encoded))

    def normalize(self, value: str) -> str:
        """Return the text with unknown characters replaced, truncated to `max_length`."""
        known = (character if character in self._ids else self._symbols[UNKNOWN] for character in self._cased(value))
        return "".join(islice(known, self.max_length))

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": f"{_MODULE}.CharacterTokenizer", "characters": self.characters, **self._options()}


class ByteTokenizer(Tokenizer):
    """Tokenizes text into UTF-8 bytes: 0 … 255 are the bytes, 256 is <start>, and nothing is unknown.

    Invalid UTF-8, which a model may generate, decodes to U+FFFD.
    """

    unit = "byte"
    size = 257
    start = 256
    unknown = None

    @classmethod
    def fit(
        cls, texts: Iterable[str | Iterable[str]], *, lowercase: bool = False, max_length: int | None = None
    ) -> Self:
        """Create a tokenizer; of the texts only whether there are any matters.

        Raises:
            ValueError: an empty text.
        """
        if not any(piece for text in texts for piece in _pieces(text)):
            raise ValueError("cannot fit a tokenizer to an empty text")
        return cls(lowercase, max_length)

    def settled(self, text: str) -> int:
        """Return the length of the text: each byte is a token."""
        return len(text)

    def _ids_of(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        return (list(piece.encode()) for piece in pieces)

    def decode(self, encoded: Iterable[int], given: str | None = None) -> str:
        return bytes(index for index in self._checked(encoded) if index != self.start).decode(errors="replace")

    def normalize(self, value: str) -> str:
        """Return the text, truncated to `max_length` bytes."""
        return self._cased(value).encode()[: self.max_length].decode(errors="replace")

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": f"{_MODULE}.ByteTokenizer", **self._options()}


class WordTokenizer(Tokenizer):
    """Tokenizes text into words, runs of blanks, line ends and other characters.

    0 is <start>, 1 is <unknown>, followed by the words. Blanks are tokens, so decoding restores the text. An unknown
    word decodes to "<unknown>".

    Args:
        words: the vocabulary, without duplicates.
        lowercase: see `Tokenizer`.
        max_length: see `Tokenizer`.

    Raises:
        ValueError: no words, or duplicates.
    """

    unit = "word"
    start = 0
    unknown = UNKNOWN

    # A token is one character or a run of one kind of character, so only the last token of a piece can continue in the
    # next piece.
    pattern = r"\w+|[^\S\n]+|\n|[^\w\s]"
    _OPEN = re.compile(r"(\w+|[^\S\n]+)\Z")

    def __init__(self, words: Sequence[str], lowercase: bool = False, max_length: int | None = None) -> None:
        super().__init__(lowercase, max_length)
        self._ids = numbered("words", words)
        self._symbols = ["", "<unknown>", *words]
        self.words = list(words)
        self.size = len(self._symbols)

    @classmethod
    def fit(
        cls,
        texts: Iterable[str | Iterable[str]],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        lowercase: bool = False,
        max_length: int | None = None,
    ) -> Self:
        """Create a tokenizer with the words of some texts, the most frequent first.

        Args:
            texts: the texts, each a string or an iterable of pieces, split anywhere.
            min_count: minimum frequency of a word.
            max_size: maximum number of words; None for no limit.
            lowercase: see `Tokenizer`; words are then counted in lower case.
            max_length: see `Tokenizer`.

        Raises:
            ValueError: an empty text, no word with a frequency of `min_count`, or a bound below one.
        """
        if min_count < 1 or (max_size is not None and max_size < 1):
            raise ValueError(f"min_count and max_size must be at least 1, got {min_count} and {max_size}")
        counts = Counter(token for text in texts for token in cls._tokens(_pieces(text, lowercase)))
        if not counts:
            raise ValueError("cannot fit a tokenizer to an empty text")
        # Ties are broken by spelling, so that the ids do not depend on where the text was split.
        kept = sorted(
            (word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word)
        )
        if not kept:
            raise ValueError(
                f"no word occurs min_count={min_count} times; "
                f"the most frequent occurs {counted(max(counts.values()), 'time')}"
            )
        return cls(kept[:max_size], lowercase, max_length)

    def settled(self, text: str) -> int:
        """Return where the last run of letters or blanks begins, which later text may continue."""
        found = self._OPEN.search(text)
        return len(text) if found is None else found.start()

    @classmethod
    def _tokens(cls, pieces: Iterable[str]) -> Iterator[str]:
        held: list[str] = []  # parts of the last token, joined only once
        for piece in pieces:
            last = held[-1][-1] if held else ""
            first, *rest = re.findall(cls.pattern, last + piece) or [""]
            if len(first) > len(last):
                held.append(first[len(last) :])
            if rest:
                yield "".join(held)
                *whole, tail = rest
                yield from whole
                held = [tail]
        if held:
            yield "".join(held)

    def _ids_of(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        ids: list[int] = []
        for token in self._tokens(pieces):
            ids.append(self._ids.get(token, UNKNOWN))
            if len(ids) == 65536:
                yield ids
                ids = []
        yield ids

    def decode(self, encoded: Iterable[int], given: str | None = None) -> str:
        return self.joined.join(self._symbols[index] for index in self._checked(encoded))

    def normalize(self, value: str) -> str:
        """Return the text with unknown words replaced, truncated to `max_length` tokens."""
        return self.joined.join(
            token if token in self._ids else self._symbols[UNKNOWN]
            for token in islice(self._tokens([self._cased(value)]), self.max_length)
        )

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": f"{_MODULE}.WordTokenizer", "words": list(self.words), **self._options()}


class SentenceTokenizer(WordTokenizer):
    """Tokenizes text into words and punctuation without blanks, for texts that need not be restored exactly.

    Apostrophes and hyphens are part of a word. Decoding joins tokens with a space.
    """

    pattern = r"\w+(?:['’\-]\w+)*|['’]\w+|[^\w\s]"
    joined = " "

    def settled(self, text: str) -> int:
        """Return where the last word begins: no token continues after a blank."""
        return max(text.rfind(" "), text.rfind("\n")) + 1

    @classmethod
    def _tokens(cls, pieces: Iterable[str]) -> Iterator[str]:
        held: list[str] = []
        for piece in pieces:
            cut = max(piece.rfind(" "), piece.rfind("\n")) + 1  # no token continues after a blank
            if cut:
                yield from re.findall(cls.pattern, "".join([*held, piece[:cut]]))
                held = []
            held.append(piece[cut:])
        yield from re.findall(cls.pattern, "".join(held))

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": f"{_MODULE}.SentenceTokenizer", "words": list(self.words), **self._options()}


TOKENIZERS: dict[str, type[CharacterTokenizer] | type[ByteTokenizer] | type[WordTokenizer]] = {
    tokenizer.unit: tokenizer for tokenizer in (CharacterTokenizer, ByteTokenizer, WordTokenizer)
}
"""The tokenizers that can be trained on a text, by their units."""


def _pieces(text: str | Iterable[str], lowercase: bool = False) -> Iterable[str]:
    pieces = [text] if isinstance(text, str) else text
    return (piece.lower() for piece in pieces) if lowercase else pieces
