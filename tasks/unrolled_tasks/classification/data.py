"""Sequences with labels or numbers, read by transforms fitted on the training split."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from unrolled.checkpoint import build_processor
from unrolled.descriptions import TRUSTED
from unrolled.processing.frames import FeatureExtractor
from unrolled.processing.labels import LabelEncoder
from unrolled.processing.numbers import Scaler
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.transform import Processor
from unrolled.training.configuration.flat import flat_options
from unrolled.training.data.base import DataError, SequenceData
from unrolled.training.data.buckets import BatchSpec, BucketPlan
from unrolled.training.data.cache import cache_folder, cached
from unrolled.training.data.examples import (
    Columns,
    Example,
    file_examples,
    row_examples,
    split_labeled,
)
from unrolled.training.data.loader import PlannedLoader
from unrolled.training.data.modalities import Modality, batched
from unrolled.training.data.options import Batching, SourceOptions
from unrolled.training.data.rows import rows_of
from unrolled.training.data.splitting import LabeledSplit
from unrolled.wording import article, counted, tally
from unrolled_tasks.classification.packages import PACKAGES, film_sentences
from unrolled_tasks.classification.preparation import Preparation, Prepared, PreparedSplit
from unrolled_tasks.classification.targets import TargetSpec

_ORIGIN, _SPLIT, _BATCHING = SourceOptions(), LabeledSplit(), Batching(batch_size=32)
_FINGERPRINT_SOURCES = 256  # number of sources in the fingerprint, beside the lengths and targets of all


class LabeledBatch(NamedTuple):
    """Sequences of similar length and their targets. Names and numbers are empty in training."""

    source: Tensor  # (batch, time) int64 or (batch, time, features)
    lengths: Tensor  # (batch,)
    targets: Tensor  # (batch,) int64, or (batch, outputs) float32, scaled numbers
    examples: Tensor  # (batch,) numbers of the examples within their split
    scale: float  # turns the summed loss into this batch's share of the step's mean
    names: tuple[str, ...] = ()  # readable names of the examples
    numbers: tuple[Sequence[float], ...] = ()  # targets in their original units; empty for labels


Loader = PlannedLoader[PreparedSplit, BatchSpec, LabeledBatch]


class ClassificationData(SequenceData):
    """Examples of any modality with labels or numbers as targets.

    Give exactly one of `package`, `files` and `dataset`. The transforms (vocabulary, normalization) are
    fitted on the training split alone. Missing splits are split off the training examples.

    Args:
        modality: the kind of sources and its options, such as `Audio`.
        unit: the modality's unit of a step: "frame" or "token".
        package: data of an installed package; see `packages`.
        archive: a file that some packages' data need.
        origin: tables, or folders with a folder for each label (paths, patterns or several); or a data set.
        source: column of the source.
        target: column of the label or number; several columns for several numbers.
        target_type: "label"; "labels", any number of them, as a list or a text with `separator`s; "number"; "share", a
            number from 0 to 1.
        separator: separator of labels in a text.
        names: readable names of labels.
        scaled: standardize numbers by the training split's mean and deviation. With False, numbers far from the range
            0 to 1 are hard to learn.
        min_examples: minimum number of training examples of each label; labels with 1 example are hard to learn.
        storage: "memory", or "disk" to read all examples once into a memory-mapped file in the cache, so that they may
            exceed memory and later runs can use them.
        cache: folder of the cache; None for $UNROLLED_CACHE or ~/.cache/unrolled.
        on_error: "raise" an error for a source that cannot be opened; "skip" it; "read" truncated recordings as far as
            possible. Skipped and truncated sources are counted in the run's first lines.
        batching: batches of similar length.
        split: how splits without their own examples are divided off.
        processor_from: the processor of a trained network, as its `to_dict` wrote it, instead of one fitted on these
            examples.

    Raises:
        DataError: no source or several, or invalid options.
    """

    divides_batches = True

    @flat_options
    def __init__(
        self,
        *,
        modality: Modality,
        unit: str = "frame",
        package: str | None = None,
        archive: str | None = None,
        origin: SourceOptions = _ORIGIN,
        source: str = "source",
        target: str | Sequence[str] = "label",
        target_type: str = "label",
        separator: str = ",",
        names: Mapping[Any, str] | None = None,
        scaled: bool = True,
        min_examples: int = 2,
        storage: str = "memory",
        cache: str | None = None,
        on_error: str = "raise",
        batching: Batching = _BATCHING,
        split: LabeledSplit = _SPLIT,
        processor_from: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        origin.check_exactly_one("examples", package=package)
        if on_error not in ("raise", "skip", "read") or storage not in ("memory", "disk") or unit != modality.unit:
            raise DataError(
                f"on_error={on_error!r} must be raise, skip or read; storage={storage!r} must be memory or disk; "
                f"unit={unit!r} must be {modality.unit} for {type(modality).__name__}"
            )
        if package is not None and package not in (*PACKAGES, "film_sentences"):
            raise DataError(f"package={package!r} must be one of {', '.join(PACKAGES)}, film_sentences")
        if min_examples < 1:
            raise DataError(f"min_examples={min_examples}: must be 1 or more")
        self.modality, self.unit = modality, unit
        self.modality.partial = on_error == "read"
        named = target if isinstance(target, str) else list(target)
        self.columns = Columns(source, named, split.group, blank=target_type == "labels")
        self.columns.check()
        self._origin = origin
        self._package, self._archive = package, archive
        self.targets = TargetSpec(
            target_type,
            self.columns.target,
            separator=separator,
            names=names,
            scaled=scaled,
            min_examples=min_examples,
        )
        self._batching, self._split = batching, split
        self._given = None if processor_from is None else _classifier_processor(processor_from)
        if self._given is not None:
            self.modality.restore(self._given.source)
        self._preparation = Preparation(self.modality, self.targets, self._given, skip=on_error == "skip")
        self._storage, self._cache = storage, cache_folder(cache)
        self._prepared: Prepared | None = None
        self._first: dict[str, list[Example]] = {}  # some of each split

    def prepare(self) -> None:
        """See `SequenceData.prepare`."""
        if self._prepared is not None:
            return
        found = self._examples()
        if list(self._split.split_fractions) != [0.0, 0.0, 1.0] or self._given is None:
            found = split_labeled(found, self._split, labeled=self.targets.kind == "label")
        else:
            found = {"test": [example for examples in found.values() for example in examples]}
        self._first = {split: examples[:8] for split, examples in found.items()}
        if self._storage == "memory":
            self._prepared = self._preparation.prepare(found)
        else:
            write = partial(self._preparation.write, found)
            self._prepared = self._preparation.load(
                *cached(self._cache, "examples", self._preparation.key(found), write)
            )

    def sizes(self) -> dict[str, int]:
        source, target = self.processor()
        tokens = self.unit == "token"
        return {
            "vocabulary": cast("Tokenizer", source).size if tokens else 0,
            "features": 0 if tokens else cast("FeatureExtractor", source).output_size,
            "outputs": cast("LabelEncoder | Scaler", target).size,
        }

    def processor(self) -> Processor:
        return self._ready.processor

    def splits(self) -> Sequence[str]:
        """See `SequenceData.splits`."""
        return tuple(self._ready.splits)

    def content(self, split: str) -> PreparedSplit:
        """Returns the prepared examples of a split. Call `prepare` first."""
        return self._ready.splits[split]

    @property
    def _ready(self) -> Prepared:
        if self._prepared is None:
            raise RuntimeError("the examples are not read yet: call prepare() first")
        return self._prepared

    def example(self, folder: Path) -> str | None:
        """See `SequenceData.example`."""
        for example in self._first.get(self.evaluated_split, []):
            with suppress(ValueError):  # one that was skipped
                self.modality.open(example)
                return self.modality.example(example, folder)
        return None

    def own_files(self) -> str:
        """See `SequenceData.own_files`."""
        return f"data={self.modality.data} data.files=FILE 'data.split_fractions=[0,0,1]'" if self.modality.data else ""

    def training_counts(self) -> dict[str, int]:
        """Returns the number of training examples of each label."""
        return dict(self._ready.training_counts)

    def describe(self) -> str:
        """See `SequenceData.describe`."""
        (source, target), splits, skipped = self.processor(), self._ready.splits, self._ready.skipped
        counts = ", ".join(f"{split} {len(content.steps):,}" for split, content in splits.items())
        steps = [steps for content in splits.values() for steps in content.steps]
        length = f"{min(steps)} to {max(steps)}" if min(steps) < max(steps) else f"{max(steps)}"
        targets = (
            counted(target.size, "label")
            if isinstance(target, LabelEncoder)
            else ", ".join(cast("Scaler", target).names)
        )
        truncated = self._ready.truncated
        errors = tally("skipped", {"unreadable": len(skipped)}, next(iter(skipped), ""))
        errors += tally("truncated", {"cut off": len(truncated)}, next(iter(truncated), ""))
        return (
            f"{counts} examples of {length} {self.unit}s, {self.modality.describe(source)}; {targets}{errors}; "
            f"scored: {self.evaluated_split}"
        )

    def fingerprint(self) -> str:
        """See `SequenceData.fingerprint`; of the sources, an evenly spaced selection is hashed."""
        if "train" not in self._ready.splits:
            return ""
        split = self._ready.splits["train"]
        digest = hashlib.sha256(repr((split.steps, split.targets.tolist())).encode())
        for number in range(0, len(split.stored), max(1, len(split.stored) // _FINGERPRINT_SOURCES)):
            source = split.stored[number]
            digest.update(source.numpy().tobytes() if isinstance(source, torch.Tensor) else repr(source).encode())
        return digest.hexdigest()

    def train_dataloader(self) -> Loader:
        """Returns the loader of one process's training batches."""
        if "train" not in self._ready.splits:
            raise DataError("there are no training examples")
        return self._loader("train", shuffle=True, restart=self.repeated, accumulate=self.accumulate, limit=self.limit)

    def val_dataloader(self) -> Loader | list[Any]:
        """Returns the loader of the validation split, in order of decreasing length; an empty list without one."""
        return self._loader("validation", restart=True) if "validation" in self._ready.splits else []

    def test_dataloader(self) -> Loader | list[Any]:
        """Returns the loader of the evaluated split; an empty list without one."""
        return self._loader(self.evaluated_split, restart=True) if self.evaluated_split in self._ready.splits else []

    def _loader(self, split: str, *, shuffle: bool = False, **options: Any) -> Loader:
        plan = BucketPlan(
            [_length_class(steps) for steps in self._ready.splits[split].steps],
            **self._batching.budget(scored=not shuffle),
            ranks=self.ranks,
            planned_ranks=self.planned_ranks if shuffle else self.ranks,
            shuffle=shuffle,
            seed=self._batching.seed,
        )
        batch = partial(self._batch, training=shuffle)
        return PlannedLoader(
            plan, self._ready.splits[split], batch, rank=self.rank, workers=self._batching.workers, **options
        )

    def _batch(self, content: PreparedSplit, spec: BatchSpec, scale: float, *, training: bool) -> LabeledBatch:
        extractor, numbers = self.processor().source, spec.rows.tolist()
        stored = [content.stored[number] for number in numbers]
        if training and content.raw:
            # By example and epoch, so that it does not depend on the number of processes, or on resuming.
            seeds = [hash((self._batching.seed, spec.epoch, number)) & 0x7FFFFFFF for number in numbers]
            read = self.modality.augmented(stored, extractor, seeds)
        else:
            read = [self.modality.read(source, extractor) for source in stored] if content.raw else stored
        source, lengths = batched(read)
        targets, examples = content.targets[numbers], torch.as_tensor(spec.rows)
        if training:
            return LabeledBatch(source, lengths, targets, examples, scale)
        names, originals = (tuple(each[number] for number in numbers) for each in (content.names, content.numbers))
        return LabeledBatch(source, lengths, targets, examples, scale, names, originals)

    def _examples(self) -> dict[str, list[Example]]:
        if self._package == "film_sentences":
            found = film_sentences(self._archive, ratings=self.targets.kind in ("number", "share"))
        elif self._package is not None:
            found = PACKAGES[self._package]()
        elif self._origin.dataset is not None or self._origin.rows is not None:
            found = row_examples(rows_of(self._origin), self.columns)
        else:
            found = file_examples(self._origin.patterns, self.columns, self.modality)
        if not any(found.values()):
            raise DataError("there are no examples in these files")
        return found


def _length_class(steps: int) -> int:
    """Rounds a length up by at most a quarter or by 3. Equal results may share a batch, which varies by epoch."""
    grain = max(4, 1 << max(0, steps.bit_length() - 3))
    return -(-steps // grain) * grain


def _classifier_processor(plain: Mapping[str, Any]) -> Processor:
    processor = build_processor(plain, trusted=TRUSTED)
    if not isinstance(processor.target, LabelEncoder | Scaler):
        kind = "nothing" if processor.target is None else article(type(processor.target).__name__)
        raise DataError(f"the checkpoint's network predicts {kind}; classification needs a LabelEncoder or a Scaler")
    return processor
