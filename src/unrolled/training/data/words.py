"""What a network reads of words, fitted to training texts."""

from collections.abc import Sequence
from dataclasses import dataclass

from unrolled.processing.text.spaced import SpacedTokenizer
from unrolled.processing.text.tokenizers import CharacterTokenizer
from unrolled.processing.text.words import SpelledWords, TokenizedWords, WordTransform
from unrolled.training.data.base import DataError
from unrolled.training.data.files import find_files, read_lines
from unrolled.training.data.seq2seq import fit_tokenizer

_UNITS = ("spelled", "word", "subword", "character", "byte")


@dataclass(frozen=True, kw_only=True)
class WordOptions:
    """What a network reads of words.

    Attributes:
        unit: "spelled" (a word's id and its characters), "word", or its "subword"s, "character"s or "byte"s, the first
            of which predicts.
        vocabulary_size: maximum number of words or subwords.
        min_count: words with a smaller count are unknown; with 2, words that occur once train the unknown one.
        lowercase: whether words are read in lower case; characters of "spelled" words are not.
        words_from: a text file such as word vectors, each line of which begins with a word. After the words of the
            training texts, its words join the vocabulary, up to `vocabulary_size`: with `task.vectors` of the same
            file, words that no training text contains have a vector, too. For the units "spelled" and "word".

    Raises:
        DataError: an unknown unit, a number below one, words_from with another unit.
    """

    unit: str = "spelled"
    vocabulary_size: int = 20000
    min_count: int = 2
    lowercase: bool = True
    words_from: str | None = None

    def __post_init__(self) -> None:
        if self.unit not in _UNITS or min(self.vocabulary_size, self.min_count) < 1:
            raise DataError(
                f"unit={self.unit!r} must be one of {', '.join(_UNITS)}, vocabulary_size={self.vocabulary_size} and "
                f"min_count={self.min_count} 1 or more"
            )
        if self.words_from is not None and self.unit not in ("spelled", "word"):
            raise DataError(f"words_from={self.words_from}: needs unit=spelled or unit=word, got unit={self.unit}")

    def fit(self, texts: Sequence[Sequence[str]]) -> WordTransform:
        """Fits a transform to the words of the training texts.

        Raises:
            DataError: there are no texts.
        """
        if not texts:
            raise DataError("there are no training rows; change data.split_fractions or data.files")
        size, least, lowercase = self.vocabulary_size, self.min_count, self.lowercase
        if self.unit in ("spelled", "word"):
            joined = [" ".join(words) for words in texts]
            words = SpacedTokenizer.fit(joined, min_count=least, max_size=size, lowercase=lowercase)
            words = SpacedTokenizer([*words.words, *self._more(words.words)], lowercase)
            return TokenizedWords(words) if self.unit == "word" else SpelledWords(words, CharacterTokenizer.fit(joined))
        joined = [" ".join(words) for words in texts]
        return TokenizedWords(fit_tokenizer(joined, self.unit, size=size, min_count=least, lowercase=lowercase))

    def _more(self, known: Sequence[str]) -> list[str]:
        """Returns the new words of `words_from`, the first in the file."""
        if self.words_from is None:
            return []
        (path,) = find_files(self.words_from, "words_from")
        lines = (line.split(" ") for line in read_lines(path))
        firsts = (fields[0] for number, fields in enumerate(lines) if number or len(fields) != 2)  # fastText's counts
        words = (word.lower() if self.lowercase else word for word in firsts if word.split() == [word])
        there = set(known)
        new = dict.fromkeys(word for word in words if word not in there)  # in order, each once
        return list(new)[: max(0, self.vocabulary_size - len(known))]
