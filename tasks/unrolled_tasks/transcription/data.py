"""Images of text lines, or recordings, with their transcripts."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from torch import Tensor, as_tensor

from unrolled.checkpoint import build_processor
from unrolled.processing.frames import FeatureExtractor
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.transform import Processor
from unrolled.training.configuration.flat import flat_options
from unrolled.training.console.terminal import track_progress
from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.bucketed import BucketData, Examples
from unrolled.training.data.buckets import BatchSpec
from unrolled.training.data.examples import Columns, Example, file_examples, row_examples, split_labeled
from unrolled.training.data.modalities import Modality, batched
from unrolled.training.data.options import Batching, SourceOptions
from unrolled.training.data.recordings import Audio
from unrolled.training.data.rows import rows_of
from unrolled.training.data.seq2seq import fit_tokenizer
from unrolled.training.data.splitting import LabeledSplit
from unrolled.wording import counted, tally
from unrolled_tasks.transcription.joining import Joining, Opened

_UNITS = {"character": "character", "word": "sentence", "subword": "subword"}  # names of `fit_tokenizer`
_BESIDE = (".gt.txt", ".txt")  # suffixes of the transcript of a file


class Drawn(Protocol):
    """Examples that are made instead of read."""

    def splits(self) -> dict[str, list[Example]]: ...


class TranscriptBatch(NamedTuple):
    """A batch of sources with their transcripts."""

    source: Tensor  # (batch, time, features)
    lengths: Tensor  # (batch,) number of frames
    targets: Tensor  # (batch, labels) int64, 0 in the padding
    predictions: Tensor  # (batch,) number of labels
    examples: Tensor  # (batch,) numbers of the examples within their split
    scale: float
    texts: tuple[str, ...] = ()  # transcripts, for scoring
    names: tuple[str, ...] = ()  # readable names of the sources, for scoring
    positions: None = None  # all frames are predicted


class TranscriptionData(BucketData[TranscriptBatch]):
    """Sources with transcripts in batches of similar length.

    Files are tables with a column of transcripts, or sources, each with its transcript in a file beside it: line.png
    and line.gt.txt or line.txt.

    Args:
        modality: the kind of sources and its options, `LineImages` or `Audio`.
        origin: files or a data set; fields of this and of the other options can be arguments, too.
        drawn: lines that are drawn instead.
        source: column of the source.
        target: column of the transcript.
        transcripts: "file", or "folder" for sources whose transcript is the name of their folder: seven/one.wav.
        unit: what a label is: "character", "word" or "subword".
        vocabulary_size: maximum number of words or subwords.
        lowercase: convert transcripts to lower case.
        join: joins short recordings to longer ones; None to leave them as they are.
        on_error: "raise" an error for a source that cannot be opened, or whose transcript is empty, too long for its
            frames, or has an unknown character; "skip" it. Skipped sources are counted in the run's first lines.
        batching: batches of similar length.
        split: how splits without their own examples are divided off.
        processor_from: the processor of a trained network, as its `to_dict` wrote it.

    Raises:
        DataError: no source or several, or invalid options.
    """

    @flat_options
    def __init__(
        self,
        modality: Modality,
        origin: SourceOptions = SourceOptions(),
        drawn: Drawn | None = None,
        source: str = "file",
        target: str = "text",
        transcripts: str = "file",
        unit: str = "character",
        vocabulary_size: int = 1000,
        lowercase: bool = False,
        join: Joining | None = None,
        on_error: str = "raise",
        batching: Batching = Batching(batch_size=32),
        split: LabeledSplit = LabeledSplit(),
        processor_from: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        origin.check_exactly_one("transcripts", drawn=drawn)
        for name, value, allowed in (
            ("on_error", on_error, ("raise", "skip")),
            ("transcripts", transcripts, ("file", "folder")),
            ("unit", unit, tuple(_UNITS)),
        ):
            if value not in allowed:
                raise DataError(f"{name}={value!r} must be {', '.join(allowed[:-1])} or {allowed[-1]}")
        if join is not None and not isinstance(modality, Audio):
            raise DataError("join joins recordings; set data.join=null, or choose data of recordings")
        self.modality: Any = modality
        self.batching, self._origin, self._drawn = batching, origin, drawn
        self._columns = Columns(source, target, split.group)
        self._columns.check()
        self._beside = _BESIDE if transcripts == "file" else ()
        self._unit, self._size, self._lowercase = unit, vocabulary_size, lowercase
        self._join, self._skip, self._split = join, on_error == "skip", split
        self._given = None if processor_from is None else build_processor(processor_from)
        if self._given is not None:
            self._check(self._given)
            modality.restore(self._given.source)
        self._opened: dict[str, list[Opened]] = {}
        self._first: dict[str, Example] = {}
        self._skipped: list[str] = []

    def prepare(self) -> None:
        """See `SequenceData.prepare`."""
        if self._opened:
            return
        found = {split: self._open(split, examples) for split, examples in self._examples().items()}
        if self._join is not None:
            rate = self.modality.rate
            found = {split: self._join(split, opened, rate) for split, opened in found.items() if opened}
        self._processor = self._given or self._fit(found.get("train", []))
        found = {split: [each for each in opened if self._fits(each)] for split, opened in found.items()}
        self._opened = {split: found[split] for split in SPLITS if found.get(split)}
        if not self._opened:
            raise DataError(
                f"all examples were skipped; the first: {self._skipped[0]}" if self._skipped else "no examples"
            )

    def _examples(self) -> dict[str, list[Example]]:
        if self._drawn is not None:
            return self._drawn.splits()
        if self._origin.dataset is not None:
            found = row_examples(rows_of(self._origin), self._columns)
        else:
            found = file_examples(self._origin.patterns, self._columns, self.modality, beside=self._beside)
        if not any(found.values()):
            raise DataError("there are no examples in these files")
        if self._given is not None and list(self._split.split_fractions) == [0.0, 0.0, 1.0]:
            return {"test": [example for examples in found.values() for example in examples]}
        return split_labeled(found, self._split, labeled=False)

    def _open(self, split: str, examples: Sequence[Example]) -> list[Opened]:
        opened: list[Opened] = []
        for example in track_progress(examples, "sources opened"):
            try:
                text = " ".join(str(example.target).split())
                if not text:
                    raise ValueError("the transcript is empty")
                source = self.modality.open(example)
            except ValueError as error:
                self._refuse(example.place, error)
                continue
            name = self.modality.display_name(example, source)
            opened.append(Opened(source, text, name, example.place))
            self._first.setdefault(split, example)
        return opened

    def _refuse(self, place: str, error: ValueError) -> None:
        message = str(error) if str(error).startswith(place) else f"{place}: {error}"
        if not self._skip:
            raise DataError(f"{message}; data.on_error=skip skips and counts such examples") from error
        self._skipped.append(message)

    def _fit(self, opened: Sequence[Opened]) -> Processor:
        if not opened:
            raise DataError("there are no training examples to fit the transforms to")
        texts = [each.text for each in opened]
        target = fit_tokenizer(texts, _UNITS[self._unit], size=self._size, lowercase=self._lowercase)
        processor = Processor(self.modality.fit([each.source for each in opened]), target)
        self._check(processor)
        return processor

    @staticmethod
    def _check(processor: Processor) -> None:
        source, target = processor
        if not isinstance(source, FeatureExtractor) or not isinstance(target, Tokenizer) or target.start != 0:
            raise DataError(
                "the processor is of another task: transcription needs frames and a tokenizer whose first id can be "
                "the blank"
            )

    def _fits(self, each: Opened) -> bool:
        """Whether an example can be learned and scored."""
        target = self._target
        try:
            ids = target.encode(each.text)
            pieces = each.text if target.unit == "character" else each.text.split()
            unknown = (piece for piece in pieces if target.unknown in target.encode(piece))
            if (wrong := next(unknown, None)) is not None:
                raise ValueError(f"the transcript {each.text!r:.60} has {wrong!r}, which no training transcript has")
            steps = self.modality.steps(each.source, self._processor.source)
            needed = _needed(ids)
            if not 0 < needed <= steps:
                raise ValueError(
                    f"{counted(steps, 'frame')} for the transcript {each.text!r:.60}, which needs at least {needed}: "
                    f"one for each {target.unit} and a blank between two equal ones"
                )
        except ValueError as error:
            self._refuse(each.place, error)
            return False
        return True

    @property
    def _target(self) -> Tokenizer:
        return cast("Tokenizer", self._processor.target)

    def sizes(self) -> dict[str, int]:
        return {"features": cast("FeatureExtractor", self.processor().source).output_size, "outputs": self._target.size}

    def processor(self) -> Processor:
        if not self._opened:
            raise RuntimeError("the examples are not read yet: call prepare() first")
        return self._processor

    def splits(self) -> Sequence[str]:
        """See `SequenceData.splits`."""
        return tuple(self._opened)

    def opened(self, split: str) -> Sequence[Opened]:
        """Returns the sources and transcripts of a split. Call `prepare` first."""
        return self._opened[split]

    def describe(self) -> str:
        """See `SequenceData.describe`."""
        counts = ", ".join(f"{split} {len(opened):,}" for split, opened in self._opened.items())
        labels = [len(ids) for ids in self._encoded.get("train", next(iter(self._encoded.values())))]
        errors = tally("skipped", {"unusable": len(self._skipped)}, next(iter(self._skipped), ""))
        return (
            f"{counts} transcripts of {min(labels)} to {max(labels)} {self._target.unit}s, {self._target.size - 2} "
            f"different ones; {self.modality.describe(self._processor.source)}{errors}; scored: {self.evaluated_split}"
        )

    def fingerprint(self) -> str:
        """See `SequenceData.fingerprint`."""
        train = self._opened.get("train", [])
        digest = hashlib.sha256(repr([each.text for each in train]).encode())
        for each in train[:: max(1, len(train) // 256)]:
            digest.update(each.source.numpy().tobytes())
        return digest.hexdigest() if train else ""

    def example(self, folder: Path) -> str | None:
        """See `SequenceData.example`."""
        first = self._first.get(self.evaluated_split)
        return None if first is None else self.modality.example(first, folder)

    def own_files(self) -> str:
        """See `SequenceData.own_files`."""
        kind = "recordings" if isinstance(self.modality, Audio) else "lines"
        return f"data={kind} data.files=FILE 'data.split_fractions=[0,0,1]'"

    @cached_property
    def _encoded(self) -> dict[str, list[list[int]]]:
        return {split: [self._target.encode(each.text) for each in opened] for split, opened in self._opened.items()}

    def examples(self, split: str, *, scored: bool) -> Examples:
        """See `BucketData.examples`; a prediction is a whole transcript."""
        source, opened = self.processor().source, self._opened[split]
        return Examples([[self.modality.steps(each.source, source)] for each in opened], [1] * len(opened))

    def batch(self, split: str, spec: BatchSpec, scale: float, *, scored: bool) -> TranscriptBatch:
        """See `BucketData.batch`; training sources are augmented by seed, epoch and example."""
        rows, extractor = spec.rows.tolist(), self.processor().source
        chosen = [self._opened[split][row] for row in rows]
        sources = [each.source for each in chosen]
        labels = [self._encoded[split][row] for row in rows]
        if scored:
            read = [self.modality.read(source, extractor) for source in sources]
        else:
            seeds = [hash((self.batching.seed, spec.epoch, row)) & 0x7FFFFFFF for row in rows]
            read = self.modality.augmented(sources, extractor, seeds)
            for place, ids in enumerate(labels):
                if len(read[place]) < _needed(ids):  # made too short for its transcript, as by a higher speed
                    read[place] = self.modality.read(sources[place], extractor)
        targets, counts = self._target.collate(labels)
        batch = TranscriptBatch(*batched(read), targets, counts, as_tensor(spec.rows), scale)
        if not scored:
            return batch
        return batch._replace(texts=tuple(each.text for each in chosen), names=tuple(each.name for each in chosen))


def _needed(ids: Sequence[int]) -> int:
    """Returns the least number of frames for these labels: a blank must be between two equal ones."""
    return len(ids) + sum(one == other for one, other in pairwise(ids))
