"""Sentences with a tag for each word: from tables, CoNLL-U, a hub set, or generated dates."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import Tensor, as_tensor

from unrolled import LabelSequenceEncoder, Processor, SpelledWords, WordTransform, build_processor
from unrolled.deployment.tagging import collate_sentences
from unrolled.training.configuration.flat import flat_options
from unrolled.training.data.base import DataError
from unrolled.training.data.bucketed import BucketData, Examples
from unrolled.training.data.buckets import BatchSpec
from unrolled.training.data.options import Batching, SourceOptions
from unrolled.training.data.rows import Row, split_rows
from unrolled.training.data.splitting import Split
from unrolled.training.data.words import WordOptions
from unrolled_tasks.tagging.dates import date_rows


class Sentence(NamedTuple):
    """Words and their tags."""

    words: list[str]
    tags: list[str]


class TagBatch(NamedTuple):
    """A batch of sentences; see `EncodedSentences` for the first three."""

    source: Tensor
    lengths: Tensor
    positions: Tensor
    predictions: Tensor  # (batch,) number of words
    targets: Tensor  # (batch, words) int64, 0 in the padding
    examples: Tensor  # (batch,) numbers of the examples within their split
    scale: float
    sentences: tuple[Sentence, ...] = ()


class TaggingData(BucketData[TagBatch]):
    """Sentences in batches of similar length.

    Args:
        origin: files or a data set; fields of this and of the other options can be arguments, too.
        reading: what the network reads of words.
        dates: number of generated dates in many languages, a set that needs no file.
        words: column of the words: a list, or a text with spaces between them.
        tags: column of the tags, likewise.
        batching: batches of similar length.
        split: fractions for splits without their own sentences; the last ones are for the test.
        processor_from: the processor of a trained network, as its `to_dict` wrote it.

    Raises:
        DataError: no source or several, or invalid options.
    """

    @flat_options
    def __init__(
        self,
        origin: SourceOptions = SourceOptions(),
        reading: WordOptions = WordOptions(),
        dates: int | None = None,
        words: str = "words",
        tags: str = "tags",
        batching: Batching = Batching(batch_size=32),
        split: Split = Split(split_fractions=(0.8, 0.1, 0.1)),
        processor_from: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        origin.check_exactly_one("sentences", dates=dates)
        if dates is not None and dates < 1:
            raise DataError(f"dates={dates} must be 1 or more")
        self._origin, self._split, self.batching = origin, split, batching
        self._reading, self._dates, self._columns = reading, dates, (words, tags)
        self._processor = None if processor_from is None else build_processor(processor_from)
        self._sentences: dict[str, list[Sentence]] = {}
        self._encoded: dict[str, list[tuple[Any, list[int]]]] = {}

    def prepare(self) -> None:
        """See `SequenceData.prepare`."""
        if self._sentences:
            return
        dates = None if self._dates is None else date_rows(self._dates, self.batching.seed)
        rows = split_rows(self._origin, self._split, dates)
        found = {split: [self._sentence(row) for row in several] for split, several in rows.items()}
        if self._processor is None:
            tags = {tag for sentences in found.values() for sentence in sentences for tag in sentence.tags}
            source = self._reading.fit([sentence.words for sentence in found.get("train", [])])
            self._processor = Processor(source, LabelSequenceEncoder(sorted(tags)))
        source, target = self._sides(self._processor)
        for split, sentences in found.items():
            self._encoded[split] = [source.encode_words(sentence.words) for sentence in sentences]
            for row, sentence in zip(rows[split], sentences, strict=True):
                try:
                    target.encode(sentence.tags)
                except ValueError as error:
                    raise DataError(f"{row.place}: {error}") from None
        self._sentences = found

    def _sentence(self, row: Row) -> Sentence:
        cells = [row.column(name, f"data.{key}") for name, key in zip(self._columns, ("words", "tags"), strict=True)]
        words, tags = ([str(c) for c in cell] if isinstance(cell, list) else str(cell).split() for cell in cells)
        wrong = next((word for word in [*words, *tags] if word.split() != [word]), None)
        if len(words) != len(tags) or not words or wrong is not None:
            problem = f"{wrong!r} is not a word" if wrong is not None else f"{len(words)} words and {len(tags)} tags"
            raise DataError(f"{row.place}: {problem}; there must be one tag for each word, and white space in none")
        return Sentence(words, tags)

    @staticmethod
    def _sides(processor: Processor) -> tuple[WordTransform, LabelSequenceEncoder]:
        source, target = processor
        if not isinstance(source, WordTransform) or not isinstance(target, LabelSequenceEncoder):
            raise DataError("the processor is of another task: tagging needs words and a tag for each of them")
        return source, target

    def sizes(self) -> dict[str, int]:
        source, target = self._sides(self.processor())
        characters = source.alphabet_size if isinstance(source, SpelledWords) else 0
        words: int = cast("Any", source).size
        return {"vocabulary": words, "characters": characters, "features": 0, "outputs": target.size}

    def processor(self) -> Processor:
        if self._processor is None:
            raise RuntimeError("the sentences are not read yet: call prepare() first")
        return self._processor

    def splits(self) -> Sequence[str]:
        """See `SequenceData.splits`."""
        return tuple(self._sentences)

    def describe(self) -> str:
        """See `SequenceData.describe`."""
        counts = ", ".join(f"{split} {len(sentences):,}" for split, sentences in self._sentences.items())
        words = sum(len(sentence.words) for sentences in self._sentences.values() for sentence in sentences)
        sizes = self.sizes()
        return (
            f"{counts} sentences with {words:,} words; {sizes['outputs']} tags, a vocabulary of "
            f"{sizes['vocabulary']:,}; scored: {self.evaluated_split}"
        )

    def fingerprint(self) -> str:
        """See `SequenceData.fingerprint`."""
        train = self._sentences.get("train")
        return "" if train is None else hashlib.sha256(repr(train).encode()).hexdigest()

    def most_frequent_tags(self) -> tuple[dict[str, str], str]:
        """Returns the most frequent tag of each word in training, and that of all words."""
        by_word: dict[str, Counter[str]] = defaultdict(Counter)
        for sentence in self._sentences.get("train", []):
            for word, tag in zip(sentence.words, sentence.tags, strict=True):
                by_word[word][tag] += 1
        every = sum(by_word.values(), Counter[str]())
        return {word: tags.most_common(1)[0][0] for word, tags in by_word.items()}, every.most_common(1)[0][0]

    def example(self, folder: Path) -> str | None:
        """See `SequenceData.example`."""
        return " ".join(self._sentences[self.evaluated_split][0].words)

    def own_files(self) -> str:
        """See `SequenceData.own_files`."""
        return "data=tagged data.files=FILE 'data.split_fractions=[0,0,1]'"

    def examples(self, split: str, *, scored: bool) -> Examples:
        """See `BucketData.examples`."""
        encoded = self._encoded[split]
        return Examples([[len(ids)] for ids, _ in encoded], [len(starts) for _, starts in encoded])

    def batch(self, split: str, spec: BatchSpec, scale: float, *, scored: bool) -> TagBatch:
        """See `BucketData.batch`."""
        source, target = self._sides(self.processor())
        sentences = tuple(self._sentences[split][row] for row in spec.rows)
        batch = collate_sentences(source, [self._encoded[split][row] for row in spec.rows])
        tags = [target.encode(s.tags[:n]) for s, n in zip(sentences, batch.words.tolist(), strict=True)]
        return TagBatch(*batch, target.collate(tags)[0], as_tensor(spec.rows), scale, sentences if scored else ())
