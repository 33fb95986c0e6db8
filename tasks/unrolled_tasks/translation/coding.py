"""The tokens of sources and targets."""

from dataclasses import dataclass

from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.tagged import TaggedTokenizer
from unrolled.training.data.base import DataError
from unrolled.training.data.seq2seq import fit_tokenizer
from unrolled_tasks.translation.store import PairStore, Texts

UNITS = ("subword", "character", "word")
TARGET_TYPES = ("text", "phonemes", "form")


@dataclass(frozen=True, kw_only=True)
class Coding:
    """The tokens of sources and targets.

    Attributes:
        unit: the unit of a token: "subword", "character" or "word".
        target_type: what the targets are: "text"; "phonemes" of a word, with a blank between them, which are tokens;
            or the inflected "form" of a lemma, whose tags are tokens beside its characters.
        subwords: the subword model, "bpe" or "unigram".
        vocabulary_size: maximum number of subwords or words.
        joint: use one vocabulary for both sides.
        lowercase: convert all text to lower case.
        subword_dropout: BPE-dropout (Provilkov et al. 2020): training pairs are tokenized anew each time they are read,
            and each merge is skipped with this probability; needs "bpe" subwords. Batches are planned and weighted by
            the tokens without dropout, which are slightly fewer.
        max_length: maximum number of tokens on a side of a training pair.

    Raises:
        DataError: invalid or conflicting options.
    """

    unit: str = "subword"
    target_type: str = "text"
    subwords: str = "bpe"
    vocabulary_size: int = 8000
    joint: bool = False
    lowercase: bool = False
    subword_dropout: float = 0.0
    max_length: int = 128

    def __post_init__(self) -> None:
        if self.unit not in UNITS or self.subwords not in ("bpe", "unigram"):
            raise DataError(
                f"unit={self.unit!r} is one of {', '.join(UNITS)}; subwords={self.subwords!r} is bpe or unigram"
            )
        if self.target_type not in TARGET_TYPES:
            raise DataError(f"target_type={self.target_type!r} is one of {', '.join(TARGET_TYPES)}")
        if self.target_type != "text" and self.unit != "character":
            raise DataError(f"target_type={self.target_type} needs unit=character, got unit={self.unit}")
        if self.target_type == "phonemes" and self.joint:
            raise DataError("target_type=phonemes needs joint=false: words and phonemes have no common tokens")
        bpe = (self.unit, self.subwords) == ("subword", "bpe")
        if not 0.0 <= self.subword_dropout < 1.0 or (self.subword_dropout > 0 and not bpe):
            raise DataError(
                f"subword_dropout={self.subword_dropout}: must be a probability below 1, and 0 unless unit=subword and "
                f"subwords=bpe; got {self.unit} and {self.subwords}"
            )
        if min(self.max_length, self.vocabulary_size) < 1:
            raise DataError(
                f"max_length={self.max_length} and vocabulary_size={self.vocabulary_size} must be 1 or more"
            )

    def fit(self, pairs: PairStore) -> tuple[Tokenizer, Tokenizer]:
        """Fits the tokenizers of sources and targets.

        Args:
            pairs: training pairs with text on both sides.

        Raises:
            DataError: text that has no tokenizer.
        """
        try:
            if self.joint:
                both = self._read(Texts(pairs, "source", "target"))
                return both, both
            return self._read(Texts(pairs, "source")), self._written(Texts(pairs, "target"))
        except ValueError as error:
            raise DataError(f"training pairs: {error}") from error

    def _read(self, texts: Texts) -> Tokenizer:
        if self.target_type == "form":
            return TaggedTokenizer.fit(texts, lowercase=self.lowercase)
        return self._fitted(texts, self.unit)

    def _written(self, texts: Texts) -> Tokenizer:
        return self._fitted(texts, "spaced" if self.target_type == "phonemes" else self.unit)

    def _fitted(self, texts: Texts, unit: str) -> Tokenizer:
        return fit_tokenizer(texts, unit, size=self.vocabulary_size, subwords=self.subwords, lowercase=self.lowercase)
