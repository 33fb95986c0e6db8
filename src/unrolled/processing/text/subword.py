"""Subwords: pieces of words, so that a small alphabet spells every word.

A word is what stands between white space; punctuation is cut off it. A space belongs to the word behind it and is
written "▁" (Kudo & Richardson 2018, "SentencePiece"), so decoding needs no rule of any language. Runs of white space
become one space, those at the ends are dropped. The pieces are found elsewhere (`unrolled.training.data.subwords`);
reading and writing them needs nothing but this file.
"""

import math
import random
import string
import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any

from unrolled.processing.text.base import UNKNOWN, Codec, numbered

SPACE = "▁"
_CACHED = 100_000  # words whose pieces are remembered
# SentencePiece's penalty: an unknown character is worse than the rarest piece by this many nats.
_UNKNOWN_PENALTY = 10.0


def words(text: str) -> Iterator[str]:
    """The words of a text, punctuation apart: "Ja, gern!" -> ▁Ja , ▁gern !"""
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


class SubwordTokenizer(Codec):
    """0 is <start>, 1 is <unknown>, then the pieces in the order given.

    An unknown character decodes to U+FFFD.

    Args:
        pieces: the alphabet, each piece once.

    Raises:
        ValueError: no piece, or one given twice.
    """

    unit = "subword"
    start = 0
    unknown = UNKNOWN

    def __init__(self, pieces: Sequence[str]) -> None:
        self._ids = numbered("pieces", pieces)
        self._symbols = ["", "\N{REPLACEMENT CHARACTER}", *pieces]
        self.pieces = list(pieces)
        self.size = len(self._symbols)
        self._known: dict[str, list[int]] = {}

    @abstractmethod
    def _spell(self, word: str) -> list[int]:
        """Ids of one word."""

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        yield from (self._encode("".join(text)) for text in [pieces])

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for word in words(text):
            spelled = self._known.get(word)
            if spelled is None:
                spelled = self._spell(word)
                if len(self._known) < _CACHED:
                    self._known[word] = spelled
            ids += spelled
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self._symbols[index] for index in self._checked(ids)).replace(SPACE, " ").removeprefix(" ")

    def symbols(self, ids: Iterable[int]) -> list[str]:
        return [self._symbols[index] for index in self._checked(ids)]


class BPETokenizer(SubwordTokenizer):
    """Byte-pair encoding (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units").

    A word is spelled in characters; then the merge that was learned first is applied, the leftmost first, and so on.

    Args:
        pieces: the alphabet, each piece once.
        merges: pairs of pieces that become one, the most important first.

    Raises:
        ValueError: no piece, one given twice, or a merge into something that is no piece.
    """

    def __init__(self, pieces: Sequence[str], merges: Sequence[Sequence[str]]) -> None:
        super().__init__(pieces)
        self.merges = [(left, right) for left, right in merges]
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        strange = next((pair for pair in self.merges if "".join(pair) not in self._ids), None)
        if strange:
            raise ValueError(f"the merge {strange} makes {''.join(strange)!r}, which is none of the pieces")

    def _spell(self, word: str) -> list[int]:
        # Neighbours are linked and merges lie in a heap: a text without blanks may be one word of any length.
        parts, ranks = list(word), self._ranks
        after, before = list(range(1, len(parts) + 1)), list(range(-1, len(parts) - 1))
        heap = [(ranks[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in ranks]
        heapify(heap)
        while heap:
            rank, left = heappop(heap)
            right = after[left]
            # A part that was merged into the one before it is empty, and what is left of other merges is out of date.
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
        """A text spelled another way each time (Provilkov et al. 2020, "BPE-Dropout", algorithm 1).

        Args:
            text: one text.
            dropout: probability that a possible merge is passed over, anew at each merge of a word.
            generator: decides which.
        """
        return [index for word in words(text) for index in self._spell_dropped(word, dropout, generator.random)]

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
        return {"_target_": "unrolled.BPETokenizer", "pieces": list(self.pieces), "merges": merges}


class UnigramTokenizer(SubwordTokenizer):
    """The most probable spelling under independent pieces (Kudo 2018, "Subword Regularization", eq. 1-2).

    Args:
        pieces: the alphabet, each piece once.
        scores: log probability of each piece.

    Raises:
        ValueError: no piece, one given twice, or another number of scores.
    """

    def __init__(self, pieces: Sequence[str], scores: Sequence[float]) -> None:
        super().__init__(pieces)
        if len(scores) != len(pieces):
            raise ValueError(f"{len(pieces)} pieces have {len(scores)} scores, expected one each")
        self.scores = [float(score) for score in scores]
        self._score = dict(zip(pieces, self.scores, strict=True))
        self._longest = max(map(len, pieces))
        self._strange = min(self.scores) - _UNKNOWN_PENALTY

    def _spell(self, word: str) -> list[int]:
        """Viterbi's search; neighbouring unknown characters are one unknown piece."""
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

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": "unrolled.UnigramTokenizer", "pieces": list(self.pieces), "scores": list(self.scores)}
