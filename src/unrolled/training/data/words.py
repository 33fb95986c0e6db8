"""What a network reads of words, fitted to training texts."""

from collections.abc import Sequence
from dataclasses import dataclass

from unrolled.processing.text.words import SpelledWords, TokenizedWords, WordTransform
from unrolled.training.data.base import DataError
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

    Raises:
        DataError: an unknown unit, a number below one.
    """

    unit: str = "spelled"
    vocabulary_size: int = 20000
    min_count: int = 2
    lowercase: bool = True

    def __post_init__(self) -> None:
        if self.unit not in _UNITS or min(self.vocabulary_size, self.min_count) < 1:
            raise DataError(
                f"unit={self.unit!r} must be one of {', '.join(_UNITS)}, vocabulary_size={self.vocabulary_size} and "
                f"min_count={self.min_count} 1 or more"
            )

    def fit(self, texts: Sequence[Sequence[str]]) -> WordTransform:
        """Fits a transform to the words of the training texts.

        Raises:
            DataError: there are no texts.
        """
        if not texts:
            raise DataError("there are no training rows; change data.split_fractions or data.files")
        size, least, lowercase = self.vocabulary_size, self.min_count, self.lowercase
        if self.unit == "spelled":
            return SpelledWords.fit(texts, min_count=least, max_size=size, lowercase=lowercase)
        unit = "spaced" if self.unit == "word" else self.unit
        joined = [" ".join(words) for words in texts]
        return TokenizedWords(fit_tokenizer(joined, unit, size=size, min_count=least, lowercase=lowercase))
