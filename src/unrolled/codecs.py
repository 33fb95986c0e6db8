"""Codecs: text <-> ids, built from plain data and written back to it.

A codec travels inside a checkpoint as a plain dict, so that a trained network reads and writes text wherever it is
loaded. Nothing here needs torch.
"""

import inspect
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Self

_MODULE = "unrolled.codecs"
_UNKNOWN = 1


class Codec(ABC):
    """A fixed alphabet: text to ids and back.

    Attributes:
        unit: what one id stands for: "character", "byte" or "word".
        size: number of ids; every id lies in 0 … size − 1.
        start: id that a model reads before the first symbol and never writes; it decodes to nothing.
        unknown: id that stands for whatever the alphabet lacks, or None where nothing can be lacking.
    """

    unit: str
    size: int
    start: int
    unknown: int | None

    @classmethod
    @abstractmethod
    def train(cls, texts: Iterable[str | Iterable[str]]) -> Self:
        """The alphabet of these texts; memory is bounded by the alphabet.

        Args:
            texts: each a string, or its pieces, cut anywhere.

        Raises:
            ValueError: the texts are empty.
        """

    @abstractmethod
    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        """Ids of a text that comes in pieces, cut anywhere: together they are `encode` of the joined text."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of these ids.

        Raises:
            ValueError: an id outside 0 … size − 1.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `codec_from_dict` builds this codec again."""

    def encode(self, text: str) -> list[int]:
        """Ids of this text, without `start`."""
        return [index for ids in self.encode_pieces([text]) for index in ids]

    def _checked(self, ids: Iterable[int]) -> Iterator[int]:
        for index in map(int, ids):
            if not 0 <= index < self.size:
                raise ValueError(
                    f"id {index} is outside this codec's 0 … {self.size - 1}: was the text encoded by another codec?"
                )
            yield index


class CharacterCodec(Codec):
    """One id per character: 0 is <start>, 1 is <unknown>, then the characters in the order given.

    An unknown character decodes to U+FFFD, as Python's own decoders write it.

    Args:
        characters: the alphabet as one string, each character once.

    Raises:
        ValueError: no character, or one given twice.
    """

    unit = "character"
    start = 0
    unknown = _UNKNOWN

    def __init__(self, characters: str) -> None:
        self._ids = _numbered("characters", characters)
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
        return ([ids.get(character, _UNKNOWN) for character in piece] for piece in pieces)

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self._symbols[index] for index in self._checked(ids))

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": f"{_MODULE}.CharacterCodec", "characters": self.characters}


class ByteCodec(Codec):
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
        return {"_target_": f"{_MODULE}.ByteCodec"}


class WordCodec(Codec):
    """One id per word, run of blanks, line end or other sign: 0 is <start>, 1 is <unknown>, then the words given.

    Blanks are kept, so decoding gives the text back as it was. A word that the alphabet lacks decodes to "<unknown>".

    Args:
        words: the alphabet, each word once.

    Raises:
        ValueError: no word, or one given twice.
    """

    unit = "word"
    start = 0
    unknown = _UNKNOWN

    # Every token is one character or a run that ends where the kind of character ends: only the last token of a piece
    # can go on in the next piece.
    _TOKEN = re.compile(r"\w+|[^\S\n]+|\n|[^\w\s]")

    def __init__(self, words: Sequence[str]) -> None:
        self._ids = _numbered("words", words)
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
                f"no word is seen min_count={min_count} times; the most frequent is seen {max(counts.values())} times"
            )
        return cls(kept[:max_size])

    @classmethod
    def _tokens(cls, pieces: Iterable[str]) -> Iterator[str]:
        held = ""
        for piece in pieces:
            tokens = cls._TOKEN.findall(held + piece)
            held = tokens.pop() if tokens else ""
            yield from tokens
        if held:
            yield held

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        ids: list[int] = []
        for token in self._tokens(pieces):
            ids.append(self._ids.get(token, _UNKNOWN))
            if len(ids) == 65536:
                yield ids
                ids = []
        yield ids

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self._symbols[index] for index in self._checked(ids))

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": f"{_MODULE}.WordCodec", "words": list(self.words)}


CODECS: dict[str, type[CharacterCodec] | type[ByteCodec] | type[WordCodec]] = {
    codec.unit: codec for codec in (CharacterCodec, ByteCodec, WordCodec)
}


def codec_from_dict(plain: Mapping[str, Any]) -> Codec:
    """The codec that wrote this dict (`to_dict`). Only classes of this module are built: the dict may come from a file.

    Raises:
        ValueError: no `_target_`, one that is no codec of this module, or arguments that the codec does not take.
    """
    targets: dict[str, Callable[..., Codec]] = {f"{_MODULE}.{codec.__name__}": codec for codec in CODECS.values()}
    target = plain.get("_target_")
    if target not in targets:
        near = get_close_matches(str(target), targets, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"a codec's _target_ is one of {', '.join(targets)}, got {target!r}{hint}")
    arguments = {name: value for name, value in plain.items() if name != "_target_"}
    expected = set(inspect.signature(targets[target]).parameters)
    if set(arguments) != expected:
        raise ValueError(f"{target} takes {sorted(expected) or 'nothing'}, got {sorted(arguments) or 'nothing'}")
    return targets[target](**arguments)


def _pieces(text: str | Iterable[str]) -> Iterable[str]:
    return [text] if isinstance(text, str) else text


def _numbered(name: str, symbols: Sequence[str]) -> dict[str, int]:
    """Ids from 2 on: 0 and 1 are <start> and <unknown>."""
    if not symbols:
        raise ValueError(f"a codec needs at least one of its {name}, got none")
    ids = {symbol: index for index, symbol in enumerate(symbols, start=2)}
    if len(ids) != len(symbols):
        twice = next(symbol for symbol, count in Counter(symbols).items() if count > 1)
        raise ValueError(f"each of a codec's {name} is given once, got {twice!r} twice")
    return ids
