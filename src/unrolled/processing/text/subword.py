"""Subword tokenizers, which can encode every word with a small vocabulary.

Text is split into words at white space, and punctuation is separated from words. A space is part of the following word
and is represented as "▁" (Kudo & Richardson 2018, "SentencePiece"), so decoding is independent of the language. White
space is collapsed to one space and removed at both ends. `unrolled.training.data.subwords` trains the vocabulary.
"""

import math
import random
import re
import string
import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any

from unrolled.processing.text.base import UNKNOWN, Tokenizer, numbered

SPACE = "▁"
_CACHED = 100_000  # number of words whose pieces are cached
# SentencePiece's penalty: the score of an unknown character is this many nats below that of the rarest piece.
_UNKNOWN_PENALTY = 10.0


def words(text: str) -> Iterator[str]:
    """Yield the words of a text, with punctuation separated: "Ja, gern!" -> ▁Ja , ▁gern !"""
    for word in text.split():
        begun = SPACE
        for character in word:
            if _is_punctuation(character):
                if begun and begun != SPACE:
                    yield begun
                    begun = ""
                yield begun + character
                begun = ""
            else:
                begun += character
        if begun:
            yield begun


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


class SubwordTokenizer(Tokenizer):
    """Base class of subword tokenizers: 0 is <start>, 1 is <unknown>, followed by the pieces.

    An unknown character decodes to U+FFFD.

    Args:
        pieces: the vocabulary, without duplicates.
        lowercase: see `Tokenizer`.
        max_length: see `Tokenizer`.

    Raises:
        ValueError: no pieces, or duplicates.
    """

    unit = "subword"
    start = 0
    unknown = UNKNOWN

    def __init__(self, pieces: Sequence[str], lowercase: bool = False, max_length: int | None = None) -> None:
        super().__init__(lowercase, max_length)
        self._ids = numbered("pieces", pieces)
        self._symbols = ["", "\N{REPLACEMENT CHARACTER}", *pieces]
        self.pieces = list(pieces)
        self.size = len(self._symbols)
        self._known: dict[str, list[int]] = {}

    @abstractmethod
    def _spell(self, word: str) -> list[int]:
        """Return the ids of one word."""

    def _ids_of(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        ids: list[int] = []
        for word in words("".join(pieces)):
            spelled = self._known.get(word)
            if spelled is None:
                spelled = self._spell(word)
                if len(self._known) < _CACHED:
                    self._known[word] = spelled
            ids += spelled
        yield ids

    def decode(self, encoded: Iterable[int], given: str | None = None) -> str:
        return "".join(self._symbols[index] for index in self._checked(encoded)).replace(SPACE, " ").removeprefix(" ")

    def normalize(self, value: str) -> str:
        """Return the text with unknown characters replaced and single spaces.

        It is derived from the characters that are pieces themselves, or with `max_length` from the first pieces.
        """
        if self.max_length is not None:
            return self.decode(self.encode(value))
        text = "".join(self._readable(word) for word in words(self._cased(value)))
        return text.replace(SPACE, " ").removeprefix(" ")

    def _readable(self, word: str) -> str:
        return "".join(character if character in self._ids else self._symbols[UNKNOWN] for character in word)

    def symbols(self, ids: Iterable[int]) -> list[str]:
        return [self._symbols[index] for index in self._checked(ids)]


class BPETokenizer(SubwordTokenizer):
    """Byte-pair encoding (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units").

    A word is split into characters, to which the merges are applied in the order of training, from left to right.

    Args:
        pieces: the vocabulary, without duplicates.
        merges: pairs of pieces that are merged, in the order of training.
        lowercase: see `Tokenizer`.
        max_length: see `Tokenizer`.

    Raises:
        ValueError: no pieces, duplicates, or a merge whose result is not a piece.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        merges: Sequence[Sequence[str]],
        lowercase: bool = False,
        max_length: int | None = None,
    ) -> None:
        super().__init__(pieces, lowercase, max_length)
        self.merges = [(left, right) for left, right in merges]
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        strange = next((pair for pair in self.merges if "".join(pair) not in self._ids), None)
        if strange:
            raise ValueError(f"the merge {strange} gives {''.join(strange)!r}, which is not a piece")

    def _spell(self, word: str) -> list[int]:
        # A linked list of pieces and a heap of merges, since a text without white space is one word of any length.
        parts, ranks = list(word), self._ranks
        after, before = list(range(1, len(parts) + 1)), list(range(-1, len(parts) - 1))
        heap = [(ranks[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in ranks]
        heapify(heap)
        while heap:
            rank, left = heappop(heap)
            right = after[left]
            # A piece that was merged into the previous one is empty, and other merges in the heap may be outdated.
            if not parts[left] or right == len(parts) or ranks.get((parts[left], parts[right])) != rank:
                continue
            parts[left], parts[right] = parts[left] + parts[right], ""
            after[left] = after[right]
            if after[left] < len(parts):
                before[after[left]] = left
            for place in (before[left], left):
                if place >= 0 and after[place] < len(parts):
                    pair = parts[place], parts[after[place]]
                    if pair in ranks:
                        heappush(heap, (ranks[pair], place))
        return [self._ids.get(part, UNKNOWN) for part in parts if part]

    def encode_dropped(self, text: str, dropout: float, generator: random.Random) -> list[int]:
        """Encode a text with random merges skipped (Provilkov et al. 2020, "BPE-Dropout", algorithm 1).

        Args:
            text: the text.
            dropout: probability that a possible merge is skipped, drawn again after each merge of a word.
            generator: the random number generator.
        """
        return [
            index for word in words(self._cased(text)) for index in self._spell_dropped(word, dropout, generator.random)
        ]

    def _spell_dropped(self, word: str, dropout: float, draw: Callable[[], float]) -> list[int]:
        parts = list(word)
        rank_of = self._ranks.get
        ranks = [rank_of(pair, math.inf) for pair in pairwise(parts)]
        while ranks:
            best = min((rank for rank in ranks if draw() >= dropout), default=math.inf)
            if best == math.inf:
                break
            place = ranks.index(best)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
            del ranks[place]
            if place > 0:
                ranks[place - 1] = rank_of((parts[place - 1], parts[place]), math.inf)
            if place < len(ranks):
                ranks[place] = rank_of((parts[place], parts[place + 1]), math.inf)
        return [self._ids.get(part, UNKNOWN) for part in parts]

    def to_dict(self) -> dict[str, Any]:
        merges = [list(pair) for pair in self.merges]
        return {"_target_": "unrolled.BPETokenizer", "pieces": list(self.pieces), "merges": merges, **self._options()}


class UnigramTokenizer(SubwordTokenizer):
    """A unigram tokenizer, which finds the most probable segmentation (Kudo 2018, "Subword Regularization", eq. 1-2).

    Args:
        pieces: the vocabulary, without duplicates.
        scores: log probability of each piece.
        lowercase: see `Tokenizer`.
        max_length: see `Tokenizer`.

    Raises:
        ValueError: no pieces, duplicates, or another number of scores.
    """

    def __init__(
        self, pieces: Sequence[str], scores: Sequence[float], lowercase: bool = False, max_length: int | None = None
    ) -> None:
        super().__init__(pieces, lowercase, max_length)
        if len(scores) != len(pieces):
            raise ValueError(f"{len(pieces)} pieces have {len(scores)} scores, expected one each")
        self.scores = [float(score) for score in scores]
        self._score = dict(zip(pieces, self.scores, strict=True))
        self._longest = max(map(len, pieces))
        self._strange = min(self.scores) - _UNKNOWN_PENALTY

    def _spell(self, word: str) -> list[int]:
        """Find the segmentation with the Viterbi algorithm; adjacent unknown characters are one unknown piece."""
        best = [0.0] + [-math.inf] * len(word)
        begins = [0] * (len(word) + 1)
        for end in range(1, len(word) + 1):
            for begin in range(max(0, end - self._longest), end):
                lone = self._strange if begin == end - 1 else -math.inf
                score = best[begin] + self._score.get(word[begin:end], lone)
                if score > best[end]:
                    best[end], begins[end] = score, begin
        ids: list[int] = []
        end = len(word)
        while end > 0:
            index = self._ids.get(word[begins[end] : end], UNKNOWN)
            if not (index == UNKNOWN and ids and ids[-1] == UNKNOWN):
                ids.append(index)
            end = begins[end]
        return ids[::-1]

    def _readable(self, word: str) -> str:
        unknown = self._symbols[UNKNOWN]
        return re.sub(f"{unknown}+", unknown, super()._readable(word))

    def to_dict(self) -> dict[str, Any]:
        about = {"pieces": list(self.pieces), "scores": list(self.scores)}
        return {"_target_": "unrolled.UnigramTokenizer", **about, **self._options()}
