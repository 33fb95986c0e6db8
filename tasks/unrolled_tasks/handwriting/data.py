"""Lines of handwriting with their texts: from tables, IAM-OnDB, a hub set, or single-stroke fonts."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from unrolled import CharacterTokenizer, Processor, StrokeTransform, Tokenizer, build_processor
from unrolled.processing.strokes import Strokes, check_strokes
from unrolled.training.configuration.flat import flat_options
from unrolled.training.data.base import DataError
from unrolled.training.data.bucketed import BucketData, Examples
from unrolled.training.data.buckets import BatchSpec
from unrolled.training.data.options import Batching, SourceOptions
from unrolled.training.data.rows import Row, split_rows
from unrolled.training.data.splitting import Split
from unrolled_tasks.handwriting.hershey import FONTS, hershey_rows
from unrolled_tasks.handwriting.iam import iam_rows

A = TypeVar("A")
B = TypeVar("B")
MODES = ("synthesis", "prediction")


class Line(NamedTuple):
    """A written line; the text is empty for prediction."""

    text: str
    strokes: Strokes
    place: str


class StrokesBatch(NamedTuple):
    """A batch of lines: the network reads each frame but the last, and predicts the next."""

    inputs: Tensor  # (batch, time, 3)
    targets: Tensor  # (batch, time, 3)
    lengths: Tensor  # (batch,) number of predictions
    source: Tensor | None  # (batch, characters) ids of the text; None for prediction
    source_lengths: Tensor | None  # (batch,)
    examples: Tensor  # (batch,) numbers of the lines within their split
    scale: float
    lines: tuple[Line, ...] = ()


class HandwritingData(BucketData[StrokesBatch]):
    """Lines in batches of similar length.

    Args:
        origin: files or a data set; fields of this and of the other options can be arguments, too.
        hershey: number of generated lines in Hershey's fonts, a set that needs no file.
        fonts: names of these fonts.
        min_length: number of characters that a generated line has at least.
        mode: "synthesis" for lines with their texts, "prediction" for strokes alone.
        text: column of the texts.
        strokes: column of the strokes: lists of points [x, y], y downwards.
        max_points: lines with more points are left out; None to keep them.
        on_error: "raise", or "skip" to leave out lines whose text or strokes cannot be used, or whose text has a
            character that no training line has.
        batching: batches of similar length.
        split: fractions for splits without their own lines; the last ones are for the test.
        processor_from: the processor of a trained network, as its `to_dict` wrote it.

    Raises:
        DataError: no source or several, or invalid options.
    """

    @flat_options
    def __init__(
        self,
        origin: SourceOptions = SourceOptions(),
        hershey: int | None = None,
        fonts: Sequence[str] = FONTS,
        min_length: int = 12,
        mode: str = "synthesis",
        text: str = "text",
        strokes: str = "strokes",
        max_points: int | None = None,
        on_error: str = "raise",
        batching: Batching = Batching(batch_size=16),
        split: Split = Split(split_fractions=(0.9, 0.05, 0.05)),
        processor_from: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        origin.check_exactly_one("handwriting", hershey=hershey)
        for name, value, allowed in (("mode", mode, MODES), ("on_error", on_error, ("raise", "skip"))):
            if value not in allowed:
                raise DataError(f"{name}={value!r}: expected one of {', '.join(allowed)}")
        if not fonts or any(number is not None and number < 1 for number in (hershey, min_length, max_points)):
            raise DataError(
                f"hershey={hershey}, fonts={list(fonts)}, min_length={min_length}, max_points={max_points}: expected "
                "numbers of 1 or more, and a font or several"
            )
        self._origin, self._split, self.batching = origin, split, batching
        self._hershey, self._fonts, self._min_length = hershey, fonts, min_length
        self.mode, self._columns, self._max_points = mode, (text, strokes), max_points
        self._on_error = on_error
        self._processor = None if processor_from is None else build_processor(processor_from)
        self._lines: dict[str, list[Line]] = {}
        self._frames: dict[str, list[Tensor]] = {}
        self._ids: dict[str, list[list[int]]] = {}
        self._left_out = 0

    def prepare(self) -> None:
        """See `SequenceData.prepare`."""
        if self._lines:
            return
        default = None
        if self._hershey is not None:
            default = hershey_rows(self._hershey, self.batching.seed, self._fonts, self._min_length)
        readers = {".xml": partial(iam_rows, texts=self.mode == "synthesis")}
        rows = split_rows(self._origin, self._split, default, readers=readers)
        lines = {split: self._usable(self._line, several) for split, several in rows.items()}
        found = {split: [line for line in several if self._fits(line)] for split, several in lines.items()}
        if not any(found.values()):
            raise DataError(f"no line is left with max_points={self._max_points}, on_error={self._on_error}")
        if self._processor is None:
            self._processor = self._fitted(found.get("train", []))
        encode = partial(_encoded, *self._sides(self._processor))
        for split, several in found.items():
            encoded = self._usable(encode, several)
            if encoded:
                self._lines[split], self._ids[split], self._frames[split] = map(list, zip(*encoded, strict=True))
        self._left_out = sum(map(len, rows.values())) - sum(map(len, self._lines.values()))

    def _usable(self, read: Callable[[A], B], values: Sequence[A]) -> list[B]:
        found: list[B] = []
        for value in values:
            try:
                found.append(read(value))
            except DataError:
                if self._on_error == "raise":
                    raise
        return found

    def _fits(self, line: Line) -> bool:
        return self._max_points is None or sum(map(len, line.strokes)) <= self._max_points

    def _line(self, row: Row) -> Line:
        text = row.text(self._columns[0], "data.text") if self.mode == "synthesis" else ""
        if self.mode == "synthesis" and not text:
            raise DataError(f"{row.place}: the text is empty; synthesis needs the text of each line")
        found = row.column(self._columns[1], "data.strokes")
        try:
            strokes = check_strokes(found)
        except ValueError as error:
            raise DataError(f"{row.place}: {error}") from None
        if sum(map(len, strokes)) < 2:
            raise DataError(f"{row.place}: one point is no line; expected two points or more")
        return Line(text, strokes, row.place)

    def _fitted(self, lines: Sequence[Line]) -> Processor:
        transform = StrokeTransform.fit(line.strokes for line in lines)
        if self.mode == "prediction":
            return Processor(transform)
        return Processor(CharacterTokenizer.fit(line.text for line in lines), transform)

    def _sides(self, processor: Processor) -> tuple[Tokenizer | None, StrokeTransform]:
        source, target = processor
        if self.mode == "prediction" and isinstance(source, StrokeTransform):
            return None, source
        if self.mode == "synthesis" and isinstance(source, Tokenizer) and isinstance(target, StrokeTransform):
            return source, target
        raise DataError(f"the processor is of another task: data.mode={self.mode} cannot use it")

    def sizes(self) -> dict[str, int]:
        tokenizer, transform = self._sides(self.processor())
        return {"vocabulary": 0 if tokenizer is None else tokenizer.size, "features": transform.output_size}

    def processor(self) -> Processor:
        if self._processor is None:
            raise RuntimeError("the lines are not read yet: call prepare() first")
        return self._processor

    def splits(self) -> Sequence[str]:
        """See `SequenceData.splits`."""
        return tuple(self._lines)

    def describe(self) -> str:
        """See `SequenceData.describe`."""
        counts = ", ".join(f"{split} {len(lines):,}" for split, lines in self._lines.items())
        points = sum(len(frames) for several in self._frames.values() for frames in several)
        left_out = f"; {self._left_out:,} left out" if self._left_out else ""
        characters = f", {self.sizes()['vocabulary']} symbols" if self.mode == "synthesis" else ""
        return f"{counts} lines with {points:,} points{characters}{left_out}; scored: {self.evaluated_split}"

    def fingerprint(self) -> str:
        """See `SequenceData.fingerprint`."""
        train = self._lines.get("train")
        if train is None:
            return ""
        return hashlib.sha256(repr([(line.text, line.strokes) for line in train]).encode()).hexdigest()

    def example(self, folder: Path) -> str | None:
        """See `SequenceData.example`."""
        return self._lines[self.evaluated_split][0].text or None

    def own_files(self) -> str:
        """See `SequenceData.own_files`."""
        return "data=strokes data.files=FILE 'data.split_fractions=[0,0,1]'"

    def lines(self, split: str, count: int) -> list[Line]:
        """Returns the first lines of a split."""
        return self._lines.get(split, [])[:count]

    def examples(self, split: str, *, scored: bool) -> Examples:
        """See `BucketData.examples`."""
        steps = [len(frames) - 1 for frames in self._frames[split]]
        return Examples([[len(ids), n] for ids, n in zip(self._ids[split], steps, strict=True)], steps)

    def batch(self, split: str, spec: BatchSpec, scale: float, *, scored: bool) -> StrokesBatch:
        """See `BucketData.batch`."""
        tokenizer, transform = self._sides(self.processor())
        frames, lengths = transform.collate([self._frames[split][row] for row in spec.rows])
        source, source_lengths = None, None
        if tokenizer is not None:
            source, source_lengths = tokenizer.collate([self._ids[split][row] for row in spec.rows])
        lines = tuple(self._lines[split][row] for row in spec.rows) if scored else ()
        examples = torch.as_tensor(spec.rows)
        return StrokesBatch(frames[:, :-1], frames[:, 1:], lengths - 1, source, source_lengths, examples, scale, lines)


def _encoded(tokenizer: Tokenizer | None, transform: StrokeTransform, line: Line) -> tuple[Line, list[int], Tensor]:
    try:
        frames = transform.encode(line.strokes)
    except ValueError as error:
        raise DataError(f"{line.place}: {error}") from None
    return line, [] if tokenizer is None else _ids(tokenizer, line), frames


def _ids(tokenizer: Tokenizer, line: Line) -> list[int]:
    ids = tokenizer.encode(line.text)
    if tokenizer.unknown is not None and tokenizer.unknown in ids:
        strange = sorted({c for c in line.text if tokenizer.unknown in tokenizer.encode(c)})
        raise DataError(
            f"{line.place}: {', '.join(map(repr, strange[:5]))} in {line.text!r:.60} is in no training line, so that "
            "the network cannot learn to write it; data.on_error=skip leaves such lines out"
        )
    return ids
