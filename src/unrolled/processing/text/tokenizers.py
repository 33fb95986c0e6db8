"""Tokenizers of characters, bytes and words, whose vocabulary is counted in a text."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from unrolled.processing.text.base import UNKNOWN, Codec, numbered
from unrolled.wording import counted

_MODULE = "unrolled"  # the module in checkpoints, independent of where the classes are defined


class CharacterTokenizer(Codec):
    """Tokenizes text into characters: 0 is <start>, 1 is <unknown>, followed by the characters.

    An unknown character decodes to U+FFFD, the Unicode replacement character.

    Args:
        characters: the vocabulary as one string, without duplicates.

    Raises:
        ValueError: no characters, or duplicates.
    """

    unit = "character"
    start = 0
    unknown = UNKNOWN

    def __init__(self, characters: str) -> None:
        self._ids = numbered("characters", characters)
        self._symbols = ["", "\N{REPLACEMENT CHARACTER}", *characters]
        self.characters = characters
        self.size = len(self._symbols)

    @classmethod
    def train(cls, texts: Iterable[str | Iterable[str]]) -> Self:
        seen: set[str] = set()
        for text in texts:
            for piece in _pieces(text):
                seen.update(piece)
        if not seen:
            raise ValueError("cannot train a codec on an empty text")
        return cls("".join(sorted(seen)))

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        ids = self._ids
        return ([ids.get(character, UNKNOWN) for character in piece] for piece in pieces)

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self._symbols[index] for index in self._checked(ids))

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": f"{_MODULE}.CharacterTokenizer", "characters": self.characters}


class ByteTokenizer(Codec):
    """Tokenizes text into UTF-8 bytes: 0 … 255 are the bytes, 256 is <start>, and nothing is unknown.

    Invalid UTF-8, which a model may generate, decodes to U+FFFD.
    """

    unit = "byte"
    size = 257
    start = 256
    unknown = None

    @classmethod
    def train(cls, texts: Iterable[str | Iterable[str]]) -> Self:
        if not any(piece for text in texts for piece in _pieces(text)):
            raise ValueError("cannot train a codec on an empty text")
        return cls()

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        return (list(piece.encode()) for piece in pieces)

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(index for index in self._checked(ids) if index != self.start).decode(errors="replace")

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": f"{_MODULE}.ByteTokenizer"}


class WordTokenizer(Codec):
    """Tokenizes text into words, runs of blanks, line ends and other characters.

    0 is <start>, 1 is <unknown>, followed by the words. Blanks are tokens, so decoding restores the text. An unknown
    word decodes to "<unknown>".

    Args:
        words: the vocabulary, without duplicates.

    Raises:
        ValueError: no words, or duplicates.
    """

    unit = "word"
    start = 0
    unknown = UNKNOWN

    # A token is one character or a run of one kind of character, so only the last token of a piece can continue in the
    # next piece.
    _TOKEN = re.compile(r"\w+|[^\S\n]+|\n|[^\w\s]")

    def __init__(self, words: Sequence[str]) -> None:
        self._ids = numbered("words", words)
        self._symbols = ["", "<unknown>", *words]
        self.words = list(words)
        self.size = len(self._symbols)

    @classmethod
    def train(cls, texts: Iterable[str | Iterable[str]], *, min_count: int = 1, max_size: int | None = None) -> Self:
        """Create a tokenizer with the words of some texts, the most frequent first.

        Args:
            texts: the texts, each a string or an iterable of pieces, split anywhere.
            min_count: minimum frequency of a word.
            max_size: maximum number of words; None for no limit.

        Raises:
            ValueError: an empty text, no word with a frequency of `min_count`, or a bound below one.
        """
        if min_count < 1 or (max_size is not None and max_size < 1):
            raise ValueError(f"min_count and max_size must be at least 1, got {min_count} and {max_size}")
        counts = Counter(token for text in texts for token in cls._tokens(_pieces(text)))
        if not counts:
            raise ValueError("cannot train a codec on an empty text")
        # Ties are broken by spelling, so that the ids do not depend on where the text was split.
        kept = sorted(
            (word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word)
        )
        if not kept:
            raise ValueError(
                f"no word occurs min_count={min_count} times; "
                f"the most frequent occurs {counted(max(counts.values()), 'time')}"
            )
        return cls(kept[:max_size])

    @classmethod
    def _tokens(cls, pieces: Iterable[str]) -> Iterator[str]:
        held: list[str] = []  # parts of the last token, joined only once
        for piece in pieces:
            last = held[-1][-1] if held else ""
            first, *rest = cls._TOKEN.findall(last + piece) or [""]
            if len(first) > len(last):
                held.append(first[len(last) :])
            if rest:
                yield "".join(held)
                *whole, tail = rest
                yield from whole
                held = [tail]
        if held:
            yield "".join(held)

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        ids: list[int] = []
        for token in self._tokens(pieces):
            ids.append(self._ids.get(token, UNKNOWN))
            if len(ids) == 65536:
                yield ids
                ids = []
        yield ids

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self._symbols[index] for index in self._checked(ids))

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": f"{_MODULE}.WordTokenizer", "words": list(self.words)}


class SentenceTokenizer(WordTokenizer):
    """Tokenizes text into words and punctuation without blanks, for texts that need not be restored exactly.

    Apostrophes and hyphens are part of a word. Decoding joins tokens with a space.
    """

    _TOKEN = re.compile(r"\w+(?:['’\-]\w+)*|['’]\w+|[^\w\s]")

    @classmethod
    def _tokens(cls, pieces: Iterable[str]) -> Iterator[str]:
        held: list[str] = []
        for piece in pieces:
            cut = max(piece.rfind(" "), piece.rfind("\n")) + 1  # no token continues after a blank
            if cut:
                yield from cls._TOKEN.findall("".join([*held, piece[:cut]]))
                held = []
            held.append(piece[cut:])
        yield from cls._TOKEN.findall("".join(held))

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join(self._symbols[index] for index in self._checked(ids))

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": f"{_MODULE}.SentenceTokenizer", "words": list(self.words)}


CODECS: dict[str, type[CharacterTokenizer] | type[ByteTokenizer] | type[WordTokenizer]] = {
    codec.unit: codec for codec in (CharacterTokenizer, ByteTokenizer, WordTokenizer)
}
"""The tokenizers that can be trained on a text, by their units."""


def _pieces(text: str | Iterable[str]) -> Iterable[str]:
    return [text] if isinstance(text, str) else text
