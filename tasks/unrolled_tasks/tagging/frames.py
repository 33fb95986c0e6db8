"""Series of measurements with a tag for each step: from tables with a row for each step, or from memory."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled import LabelSequenceEncoder, Processor, SeriesScaler, build_processor
from unrolled.training.configuration.flat import flat_options
from unrolled.training.data.base import DataError
from unrolled.training.data.bucketed import BucketData, Examples
from unrolled.training.data.buckets import BatchSpec
from unrolled.training.data.options import Batching, SourceOptions
from unrolled.training.data.rows import Row, rows_of
from unrolled.training.data.splitting import Split
from unrolled.wording import counted
from unrolled_tasks.tagging.data import Sentence, TagBatch


class FrameTaggingData(BucketData[TagBatch]):
    """Series with a tag for each step, in batches of similar length.

    Args:
        origin: files or a data set, with a row for each step; or rows in memory, with a series in each: "source" (time,
            channels) and "tags". Fields of this and of the other options can be arguments, too.
        series: column of the series of a row; None: each file is one series.
        channels: columns to read; None for all columns without another role.
        tags: column of the tags.
        unit: "frame".
        batching: batches of similar length.
        split: fractions for splits without their own series; the last ones are for the test.
        processor_from: the processor of a trained network, as its `to_dict` wrote it.

    Raises:
        DataError: no source, another unit, or invalid options.
    """

    @flat_options
    def __init__(
        self,
        origin: SourceOptions = SourceOptions(),
        series: str | None = None,
        channels: Sequence[str] | None = None,
        tags: str = "tag",
        unit: str = "frame",
        batching: Batching = Batching(batch_size=32),
        split: Split = Split(split_fractions=(0.8, 0.1, 0.1)),
        processor_from: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        origin.check_exactly_one("series")
        if unit != "frame":
            raise DataError(f"unit={unit!r} must be frame for series")
        self._origin, self._split, self.batching = origin, split, batching
        self._series, self._channels, self._tags = series, None if channels is None else list(channels), tags
        self._processor = None if processor_from is None else build_processor(processor_from)
        self._found: dict[str, list[tuple[Tensor, list[str], str]]] = {}
        self._encoded: dict[str, list[tuple[Tensor, list[int]]]] = {}

    def prepare(self) -> None:
        """See `SequenceData.prepare`."""
        if self._found:
            return
        rows = rows_of(self._origin)
        read = {name: self._read(list(rows.read(name))) for name in rows.splits}
        train = read.pop("train", [])
        places = self._split.last(len(train), list(read))
        found = {**read, **{name: [train[place] for place in each] for name, each in places.items()}}
        found = {name: found[name] for name in ("train", "validation", "test") if found.get(name)}
        if not found:
            raise DataError("there are no series in these files")
        if self._processor is None:
            self._processor = self._fit(found)
        source, target = self._sides(self._processor)
        for split, several in found.items():
            self._encoded[split] = []
            for steps, tags, place in several:
                try:
                    self._encoded[split].append((source(steps), target.encode(tags)))
                except ValueError as error:
                    raise DataError(f"{place}: {error}") from None
        self._found = found

    def _read(self, rows: Sequence[Row]) -> list[tuple[Tensor, list[str], str]]:
        """Returns steps (time, channels), tags and place of each series."""
        if self._origin.rows is not None:
            return [(row.values["source"], list(map(str, row.values["tags"])), row.place) for row in rows]
        grouped: dict[Any, list[Row]] = {}
        for row in rows:
            name = row.file if self._series is None else row.column(self._series, "data.series")
            grouped.setdefault(name, []).append(row)
        return [self._of_rows(several) for several in grouped.values()]

    def _of_rows(self, rows: Sequence[Row]) -> tuple[Tensor, list[str], str]:
        others = {self._series, self._tags}
        if self._channels is None:
            self._channels = [str(name) for name in rows[0].values if name not in others]
        tags = [str(row.column(self._tags, "data.tags")) for row in rows]
        try:
            steps = [[float(row.column(name, "data.channels")) for name in self._channels] for row in rows]
        except (TypeError, OverflowError, ValueError) as error:
            raise DataError(f"{rows[0].place}: a channel has something else than a number: {error}") from None
        wrong = next((step for step, numbers in enumerate(steps) if not all(map(math.isfinite, numbers))), None)
        if wrong is not None:
            raise DataError(f"{rows[wrong].place}: a channel is not finite; fill or remove such steps")
        return torch.tensor(steps, dtype=torch.float64), tags, rows[0].place

    def _fit(self, found: Mapping[str, Sequence[tuple[Tensor, list[str], str]]]) -> Processor:
        train = [steps for steps, _, _ in found.get("train", [])]
        if not train:
            raise DataError("there are no training series; change data.split_fractions or data.files")
        tags = sorted({tag for several in found.values() for _, each, _ in several for tag in each})
        if len(tags) < 2:
            raise DataError(f"all steps have the tag {', '.join(tags)!r}: there must be two or more")
        names = self._channels or [f"channel {number}" for number in range(train[0].shape[1])]
        return Processor(SeriesScaler.fit(train, names), LabelSequenceEncoder(tags))

    @staticmethod
    def _sides(processor: Processor) -> tuple[SeriesScaler, LabelSequenceEncoder]:
        source, target = processor
        if not isinstance(source, SeriesScaler) or not isinstance(target, LabelSequenceEncoder):
            raise DataError("the processor is of another task: these data have series and a tag for each step")
        return source, target

    def sizes(self) -> dict[str, int]:
        source, target = self._sides(self.processor())
        return {"vocabulary": 0, "characters": 0, "features": source.output_size, "outputs": target.size}

    def processor(self) -> Processor:
        if self._processor is None:
            raise RuntimeError("the series are not read yet: call prepare() first")
        return self._processor

    def splits(self) -> Sequence[str]:
        """See `SequenceData.splits`."""
        return tuple(self._found)

    def describe(self) -> str:
        """See `SequenceData.describe`."""
        counts = ", ".join(f"{split} {len(several):,}" for split, several in self._found.items())
        steps = sum(len(tags) for several in self._found.values() for _, tags, _ in several)
        sizes = self.sizes()
        return (
            f"{counts} series with {steps:,} steps of {counted(sizes['features'], 'channel')}; "
            f"{sizes['outputs']} tags; scored: {self.evaluated_split}"
        )

    def fingerprint(self) -> str:
        """See `SequenceData.fingerprint`."""
        digest = hashlib.sha256()
        for steps, tags, _ in self._found.get("train", []):
            digest.update(steps.numpy().tobytes() + repr(tags).encode())
        return digest.hexdigest() if "train" in self._found else ""

    def own_files(self) -> str:
        """See `SequenceData.own_files`."""
        return "data=tagged_series data.files=FILE 'data.split_fractions=[0,0,1]'"

    def examples(self, split: str, *, scored: bool) -> Examples:
        """See `BucketData.examples`."""
        lengths = [len(tags) for _, tags in self._encoded[split]]
        return Examples([[length] for length in lengths], lengths)

    def batch(self, split: str, spec: BatchSpec, scale: float, *, scored: bool) -> TagBatch:
        """See `BucketData.batch`. The words of a scored series are the numbers of its steps."""
        source, target = self._sides(self.processor())
        frames, ids = zip(*(self._encoded[split][row] for row in spec.rows), strict=True)
        padded, lengths = source.collate(frames)
        positions = torch.arange(padded.shape[1]).expand(len(ids), -1)
        tags = [self._found[split][row][1] for row in spec.rows] if scored else []
        sentences = tuple(Sentence([str(step) for step in range(len(each))], each) for each in tags)
        examples = torch.as_tensor(spec.rows)
        return TagBatch(padded, lengths, positions, lengths, target.collate(ids)[0], examples, scale, sentences)
