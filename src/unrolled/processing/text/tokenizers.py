"""Alphabets of characters, bytes and words, made from a text by counting."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from unrolled.processing.text.base import UNKNOWN, Codec, numbered
from unrolled.wording import counted

_MODULE = "unrolled"  # where a checkpoint finds these classes, wherever they are defined


class CharacterTokenizer(Codec):
    """One id per character: 0 is <start>, 1 is <unknown>, then the characters in the order given.

    An unknown character decodes to U+FFFD, as Python's own decoders write it.

    Args:
        characters: the alphabet as one string, each character once.

    Raises:
        ValueError: no character, or one given twice.
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
    """One id per byte of the text in UTF-8: 0 … 255 are the bytes, 256 is <start>; nothing is unknown.

    Bytes that are no UTF-8, as a model may write them, decode to U+FFFD.
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
    """One id per word, run of blanks, line end or other sign: 0 is <start>, 1 is <unknown>, then the words given.

    Blanks are kept, so decoding gives the text back as it was. A word that the alphabet lacks decodes to "<unknown>".

    Args:
        words: the alphabet, each word once.

    Raises:
        ValueError: no word, or one given twice.
    """

    unit = "word"
    start = 0
    unknown = UNKNOWN

    # Every token is one character or a run that ends where the kind of character ends: only the last token of a piece
    # can go on in the next piece.
    _TOKEN = re.compile(r"\w+|[^\S\n]+|\n|[^\w\s]")

    def __init__(self, words: Sequence[str]) -> None:
        self._ids = numbered("words", words)
        self._symbols = ["", "<unknown>", *words]
        self.words = list(words)
        self.size = len(self._symbols)

    @classmethod
    def train(cls, texts: Iterable[str | Iterable[str]], *, min_count: int = 1, max_size: int | None = None) -> Self:
        """The words of a text, the most frequent first.

        Args:
            texts: each a string, or its pieces, cut anywhere.
            min_count: words seen less often are left out.
            max_size: how many words are kept at most.

        Raises:
            ValueError: an empty text, no word as frequent as `min_count`, or a bound below one.
        """
        if min_count < 1 or (max_size is not None and max_size < 1):
            raise ValueError(f"min_count and max_size must be at least 1, got {min_count} and {max_size}")
        counts = Counter(token for text in texts for token in cls._tokens(_pieces(text)))
        if not counts:
            raise ValueError("cannot train a codec on an empty text")
        # Ties are broken by spelling, so that the ids do not depend on where the text was cut.
        kept = sorted(
            (word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word)
        )
        if not kept:
            raise ValueError(
                f"no word is seen min_count={min_count} times; "
                f"the most frequent is seen {counted(max(counts.values()), 'time')}"
            )
        return cls(kept[:max_size])

    @classmethod
    def _tokens(cls, pieces: Iterable[str]) -> Iterator[str]:
        held: list[str] = []  # the parts of the last token, joined once, however long it gets
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
    """One id per word or sign, none for the blanks between them: what is read and never written back as it was.

    A word keeps its apostrophes and hyphens. Decoding puts a blank between two symbols.
    """

    _TOKEN = re.compile(r"\w+(?:['’\-]\w+)*|['’]\w+|[^\w\s]")

    @classmethod
    def _tokens(cls, pieces: Iterable[str]) -> Iterator[str]:
        held: list[str] = []
        for piece in pieces:
            cut = max(piece.rfind(" "), piece.rfind("\n")) + 1  # no symbol goes on behind a blank
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
"""The codecs that a text trains by itself, by their units."""


def _pieces(text: str | Iterable[str]) -> Iterable[str]:
    return [text] if isinstance(text, str) else text
