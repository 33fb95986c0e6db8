"""Preparation of examples before training: opened and read once, into memory or a folder of the cache."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from unrolled.checkpoint import build_processor
from unrolled.descriptions import TRUSTED
from unrolled.processing.audio.recordings import CutOffError
from unrolled.processing.labels import LabelEncoder
from unrolled.processing.numbers import Scaler
from unrolled.processing.transform import Processor
from unrolled.training.console.terminal import track_progress
from unrolled.training.data.arrays import Sequences, write_sequences
from unrolled.training.data.base import DataError
from unrolled.training.data.examples import Example, label_counts
from unrolled.training.data.files import is_accessible_file, stamps
from unrolled.training.data.modalities import Modality, located
from unrolled_tasks.classification.targets import TargetSpec

_VERSION = 5  # increase it when the same options give another result

Store = Callable[[str, Iterable[Any]], Sequence[Any]]  # (name, items) -> the stored items, with random access


class PreparedSplit(NamedTuple):
    """The stored sequences of a split's examples, and their targets."""

    stored: Sequence[Any]  # inputs of the network, or sources if `raw`
    raw: bool  # whether sources are stored, since they are augmented in every epoch
    steps: list[int]
    targets: Tensor  # targets of the loss
    numbers: list[list[float]]  # targets in their original units; empty for labels
    names: list[str]  # readable names of the examples


class Prepared(NamedTuple):
    """The result of a preparation."""

    processor: Processor
    splits: dict[str, PreparedSplit]
    training_counts: dict[str, int]  # number of training examples of each label
    skipped: list[str]  # descriptions of sources that could not be opened
    truncated: list[str]  # descriptions of sources that were opened in part


class Preparation:
    """Converts examples to inputs and targets of a network.

    Args:
        modality: opens and reads the sources.
        targets: converts the targets.
        given: the processor of a trained network, instead of one fitted on the training split.
        skip: skip and count sources that cannot be opened.
    """

    def __init__(self, modality: Modality, targets: TargetSpec, given: Processor | None, *, skip: bool) -> None:
        self._modality, self._targets, self._given, self._skip = modality, targets, given, skip

    def prepare(self, found: Mapping[str, Sequence[Example]], store: Store | None = None) -> Prepared:
        """Opens and reads all examples of all splits.

        Args:
            found: the examples of each split.
            store: stores sources and frames; None for memory.

        Raises:
            DataError: an example that cannot be used, or targets that cannot be learned.
        """
        store = store or _in_memory
        # Texts are in memory with their examples in any case.
        store_source = store if self._modality.unit == "frame" else _in_memory
        opened: dict[str, tuple[list[Example], Sequence[Any]]] = {}
        skipped: list[str] = []
        for split, examples in found.items():
            usable: list[Example] = []
            sources = store_source(f"{split}.opened", self._opened(examples, usable, skipped))
            if usable:
                opened[split] = usable, sources
        processor = self._given or self._fit(*opened.get("train", ([], [])))
        counts: dict[str, int] = {}
        if isinstance(processor.target, LabelEncoder) and "train" in opened:
            found_labels = label_counts(self._targets.labels(example) for example in opened["train"][0])
            counts = {label: found_labels[label] for label in processor.target.labels}
        splits = {split: self._read_split(split, *both, processor, store) for split, both in opened.items()}
        return Prepared(processor, splits, counts, skipped, list(self._modality.truncated))

    def _fit(self, examples: Sequence[Example], sources: Sequence[Any]) -> Processor:
        target = self._targets.fit(examples)
        return Processor(self._modality.fit(sources), target)

    def key(self, found: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
        """Returns plain data that differ whenever the result of `prepare` does."""
        return {
            "version": _VERSION,
            "modality": [type(self._modality).__name__, self._modality.options(), self._modality.augments],
            "targets": self._targets.options(),
            "processor": self._given.to_dict() if self._given else None,
            "skip": self._skip,
            "examples": {split: [self._stamp(example) for example in examples] for split, examples in found.items()},
        }

    def write(self, found: Mapping[str, Sequence[Example]], folder: Path) -> dict[str, Any]:
        """Prepares examples, writes a file of sequences for each split, and returns what is known about them."""

        def store(name: str, items: Iterable[Any]) -> Sequence[Any]:
            write_sequences(folder / f"{name}.arrow", items)
            return Sequences(folder / f"{name}.arrow")

        prepared = self.prepare(found, store)
        splits: dict[str, Any] = {}
        for name, split in prepared.splits.items():
            splits[name] = {"raw": split.raw, "steps": split.steps, "names": split.names}
            splits[name] |= {"targets": split.targets.tolist(), "numbers": split.numbers}
            unused = "read" if split.raw else "opened"
            (folder / f"{name}.{unused}.arrow").unlink(missing_ok=True)
        return {
            "processor": prepared.processor.to_dict(),
            "training_counts": prepared.training_counts,
            "skipped": prepared.skipped,
            "truncated": prepared.truncated,
            "splits": splits,
        }

    def load(self, folder: Path, about: Mapping[str, Any]) -> Prepared:
        """Loads the result of `write`, from the folder and from what it returned."""
        processor = build_processor(about["processor"], trusted=TRUSTED)
        self._modality.restore(processor.source)
        splits = {
            name: PreparedSplit(
                Sequences(folder / f"{name}.{'opened' if split['raw'] else 'read'}.arrow"),
                split["raw"],
                split["steps"],
                torch.tensor(split["targets"]),
                split["numbers"],
                split["names"],
            )
            for name, split in about["splits"].items()
        }
        return Prepared(processor, splits, about["training_counts"], about["skipped"], about["truncated"])

    def _opened(self, examples: Sequence[Example], usable: list[Example], skipped: list[str]) -> Iterator[Any]:
        """Yields the sources of examples, and adds the examples that could be opened to `usable`."""
        for example in track_progress(examples, "examples opened"):
            try:
                source = self._modality.open(example)
            except ValueError as error:
                message = str(error) if str(error).startswith(example.place) else f"{example.place}: {error}"
                if not self._skip:
                    remedy = "skip skips and counts such examples"
                    if isinstance(error, CutOffError):
                        remedy += ", read reads them as far as possible"
                    raise DataError(f"{message}; data.on_error={remedy}") from error
                skipped.append(message)
                continue
            usable.append(example)
            yield source

    def _read_split(
        self,
        split: str,
        examples: Sequence[Example],
        sources: Sequence[Any],
        processor: Processor,
        store: Store,
    ) -> PreparedSplit:
        steps: list[int] = []
        targets: list[Tensor] = []
        names: list[str] = []
        numbers: list[list[float]] = []
        raw = split == "train" and self._modality.augments
        target = cast("LabelEncoder | Scaler", processor.target)

        def read() -> Iterator[Tensor]:
            for example, source in zip(track_progress(examples, "examples read"), sources, strict=True):
                try:
                    frames = None if raw else self._modality.read(source, processor.source)
                    targets.append(self._targets.target(example, target))
                    numbers.append(self._targets.numbers(example) if isinstance(target, Scaler) else [])
                except ValueError as error:
                    raise DataError(f"{split}, {example.place}: {error}") from error
                steps.append(self._modality.steps(source, processor.source) if frames is None else len(frames))
                names.append(self._modality.display_name(example, source))
                if frames is not None:
                    yield frames

        frames = store(f"{split}.read", read())
        return PreparedSplit(sources if raw else frames, raw, steps, torch.stack(targets), numbers, names)

    def _stamp(self, example: Example) -> list[Any]:
        """Returns plain data that differ whenever the example does."""
        source = example.source if self._modality.unit == "token" else located(example)
        if isinstance(source, Path):
            source = stamps([source])[0] if is_accessible_file(source) else None
        elif isinstance(source, Tensor):
            source = hashlib.sha256(source.contiguous().numpy().tobytes()).hexdigest()
        elif isinstance(source, bytes):
            source = hashlib.sha256(source).hexdigest()
        return [example.place, example.target, source]


def _in_memory(name: str, items: Iterable[Any]) -> Sequence[Any]:
    return list(items)
