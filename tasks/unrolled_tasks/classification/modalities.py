"""What can be classified, and how it becomes what a network reads: what all modalities share, and text."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.processing.frames import FeatureExtractor
from unrolled.processing.labels import LabelCodec, NumberCodec
from unrolled.processing.text.base import Codec
from unrolled.processing.text.tokenizers import CODECS, SentenceTokenizer
from unrolled.training.console.terminal import shown
from unrolled.training.data.base import DataError
from unrolled.training.data.subwords import train_subwords
from unrolled.wording import article, counted
from unrolled_tasks.classification.examples import Columns, Example


class Modality(ABC):
    """A kind of source: opened, measured, and read by what is fitted on the training split.

    Attributes:
        unit: what a step is: "frame" or "token".
        suffixes: of files that are an example each.
        what: names such files in messages.
        reads: the class of what is fitted.
        data: the choice of the group `data` for files of this kind.
        augments: whether training sees sources changed at random.
        partial: what is cut off is opened as far as it goes, by modalities that can.
    """

    unit: ClassVar[str] = "frame"
    suffixes: ClassVar[tuple[str, ...]] = ()
    what: ClassVar[str] = "files"
    reads: ClassVar[type] = object
    data: ClassVar[str] = ""
    partial: bool = False

    @property
    def augments(self) -> bool:
        return False

    @property
    def cut_off(self) -> Sequence[str]:
        """What was opened in split so far, and what it lacks."""
        return ()

    def file_examples(self, path: Path, columns: Columns) -> Iterable[Example] | None:
        """The examples of a file that holds several in this modality's own way; None for any other file."""
        return None

    @abstractmethod
    def open(self, example: Example) -> Any:
        """The source of an example, in memory.

        Raises:
            ValueError: it cannot be used; the place is added by whoever called.
        """

    @abstractmethod
    def fit(self, sources: Sequence[Any]) -> Codec | FeatureExtractor:
        """The codec or extractor for these sources, which are the training split's."""

    def options(self) -> dict[str, Any]:
        """All that decides what is opened and read, as plain data.

        Raises:
            DataError: a modality that doesn't say.
        """
        raise DataError(
            f"{type(self).__name__} has no options() to tell prepared examples by: take data.storage=memory"
        )

    def restore(self, codec: LabelCodec | NumberCodec) -> None:
        """Takes over what a trained network's codec has fixed, before anything is opened.

        Raises:
            DataError: that network reads something else.
        """
        if not isinstance(codec.source, self.reads):
            raise DataError(
                f"this checkpoint's network reads with {article(type(codec.source).__name__)}, and "
                f"{type(self).__name__} are read with {article(self.reads.__name__)}: "
                f"give it data of its own kind, data=…"
            )

    @abstractmethod
    def read(self, source: Any, extractor: Any) -> Tensor:
        """What the network reads of a source: (time,) ids or (time, features)."""

    def augmented(self, sources: Sequence[Any], extractor: Any, seeds: Sequence[int]) -> list[Tensor]:
        """What the network reads of sources changed at random, each by its own seed; by default nothing is changed."""
        return [self.read(source, extractor) for source in sources]

    def steps(self, source: Any, extractor: Any) -> int:
        """How many steps `read` gives."""
        return len(self.read(source, extractor))

    def shown(self, example: Example, source: Any) -> str:
        """An example as a person finds it again."""
        return example.place

    def example(self, example: Example, folder: Path) -> str | None:
        """An example as one gives it to a command: a line of text, or the path of a file.

        If there is no file, one may be written into the folder; None where there is no such thing.
        """
        path = located(example)
        return shown(path) if isinstance(path, Path) and path.is_file() else None

    def describe(self, extractor: Any) -> str:
        """A few words on what the network reads."""
        return f"{counted(extractor.output_size, 'feature')} a {self.unit}"


def located(example: Example) -> Any:
    """The source of an example, a path where a table or the hub names a file: relative to where the table lies."""
    source = example.source
    if isinstance(source, Mapping):
        held: Mapping[str, Any] = source
        source = held.get("bytes") or held.get("path")
    if isinstance(source, str):
        table = Path(example.place.partition(", line ")[0].partition(", row ")[0])
        return Path(source) if Path(source).is_absolute() else table.parent / source
    return source


def batched(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Sequences side by side, padded with zeros, and their lengths."""
    return pad_sequence(list(sequences), batch_first=True), torch.tensor([len(sequence) for sequence in sequences])


class Text(Modality):
    """Sentences and longer texts, from tables.

    Args:
        unit: "word" (words and signs), "character", "byte" or "subword".
        subwords: how subwords are found: "bpe" or "unigram".
        vocabulary_size: of words and subwords.
        min_count: words seen less often in training become the unknown word, which is learned from them.
        lowercase: in lower case.
        max_length: steps of a text; what is longer is cut behind them. None for all.

    Raises:
        DataError: options without sense.
    """

    unit: ClassVar[str] = "token"
    reads: ClassVar[type] = Codec
    data: ClassVar[str] = "sentences"

    def __init__(
        self,
        unit: str = "word",
        subwords: str = "bpe",
        vocabulary_size: int = 20000,
        min_count: int = 2,
        lowercase: bool = True,
        max_length: int | None = None,
    ) -> None:
        if unit not in ("word", "subword", "character", "byte") or subwords not in ("bpe", "unigram"):
            raise DataError(
                f"unit={unit!r} is word, subword, character or byte, subwords={subwords!r} is bpe or unigram"
            )
        if min(vocabulary_size, min_count, 1 if max_length is None else max_length) < 1:
            raise DataError(
                f"vocabulary_size={vocabulary_size}, min_count={min_count} and max_length={max_length} are 1 or more"
            )
        self.symbols, self.subwords, self.vocabulary_size = unit, subwords, vocabulary_size
        self.min_count, self.lowercase, self.max_length = min_count, lowercase, max_length

    def options(self) -> dict[str, Any]:
        return {
            "unit": self.symbols,
            "subwords": self.subwords,
            "vocabulary_size": self.vocabulary_size,
            "min_count": self.min_count,
            "lowercase": self.lowercase,
            "max_length": self.max_length,
        }

    def open(self, example: Example) -> str:
        if not isinstance(example.source, str):
            raise ValueError(f"its source is no text but {example.source!r:.80}")
        text = " ".join(example.source.split())
        if not text:
            raise ValueError("the text is empty")
        return text.lower() if self.lowercase else text

    def restore(self, codec: LabelCodec | NumberCodec) -> None:
        super().restore(codec)
        self.lowercase, self.max_length = codec.lowercase, codec.max_length

    def fit(self, sources: Sequence[str]) -> Codec:
        if self.symbols == "subword":
            return train_subwords(sources, self.vocabulary_size, kind=self.subwords)
        if self.symbols == "word":
            return SentenceTokenizer.train(_lines(sources), min_count=self.min_count, max_size=self.vocabulary_size)
        return CODECS[self.symbols].train(sources)

    def read(self, source: str, extractor: Codec) -> Tensor:
        ids = extractor.encode(source)[: self.max_length]
        if not ids:
            raise ValueError(f"the text {source!r:.80} has no {extractor.unit} that can be read")
        return torch.tensor(ids)

    def shown(self, example: Example, source: str) -> str:
        return source

    def example(self, example: Example, folder: Path) -> str | None:
        return " ".join(str(example.source).split())[:200]

    def describe(self, extractor: Codec) -> str:
        return f"{extractor.size:,} {extractor.unit}s"


def _lines(texts: Sequence[str]) -> list[list[str]]:
    """Each text as pieces of its own, so that no word joins two texts."""
    return [[text, "\n"] for text in texts]
