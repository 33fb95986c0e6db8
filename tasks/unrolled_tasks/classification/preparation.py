"""Examples opened and read once, before training: in memory, or into a folder of the cache."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.checkpoint import TRUSTED, build
from unrolled.processing.audio.recordings import CutOffError
from unrolled.processing.labels import LabelCodec, NumberCodec
from unrolled.training.console.terminal import waiting
from unrolled.training.data.arrays import Sequences, write_sequences
from unrolled.training.data.base import DataError
from unrolled.training.data.files import is_there, stamps
from unrolled_tasks.classification.examples import Example, label_counts
from unrolled_tasks.classification.modalities import Modality, located
from unrolled_tasks.classification.targets import TargetSpec

_VERSION = 4  # raise it when the same options lead to other numbers

Store = Callable[[str, Iterable[Any]], Sequence[Any]]  # puts things down under a name, to be taken from anywhere


class PreparedSplit(NamedTuple):
    """What is kept of a split's examples, and what is known of each."""

    kept: Sequence[Any]  # what the network reads of them
    unread: bool  # what is kept are sources as they were opened, since training changes them at random each time
    steps: list[int]
    targets: Tensor  # as the network learns them
    numbers: list[list[float]]  # answers in their own units; empty for labels
    shown: list[str]


class Prepared(NamedTuple):
    """Parts that can be trained on and scored."""

    codec: LabelCodec | NumberCodec
    splits: dict[str, PreparedSplit]
    training_counts: dict[str, int]  # of each label
    skipped: list[str]  # what could not be opened, and why
    cut_off: list[str]  # what was opened as far as it goes


class Preparation:
    """From examples to what a network reads and answers.

    Args:
        modality: opens and reads them.
        answers: understands what they are.
        given: the codec of a trained network, instead of one fitted on the training split.
        skip: what cannot be opened is left out and counted.
    """

    def __init__(
        self, modality: Modality, answers: TargetSpec, given: LabelCodec | NumberCodec | None, *, skip: bool
    ) -> None:
        self._modality, self._targets, self._given, self._skip = modality, answers, given, skip

    def prepared(self, found: Mapping[str, Sequence[Example]], shelf: Store | None = None) -> Prepared:
        """Opens and reads all examples of all splits.

        Args:
            found: the examples of each split.
            shelf: where sources and frames are put down; None for memory.

        Raises:
            DataError: an example that cannot be used, or nothing that can be learned from.
        """
        shelf = shelf or _in_memory
        # Texts lie in memory with their examples, whatever is done with what is read of them.
        opening = shelf if self._modality.unit == "frame" else _in_memory
        opened: dict[str, tuple[list[Example], Sequence[Any]]] = {}
        skipped: list[str] = []
        for split, examples in found.items():
            kept: list[Example] = []
            sources = opening(f"{split}.opened", self._opened(examples, kept, skipped))
            if kept:
                opened[split] = kept, sources
        codec = self._given or self._targets.fit(*opened.get("train", ([], [])), self._modality)
        counts: dict[str, int] = {}
        if isinstance(codec, LabelCodec) and "train" in opened:
            found_labels = label_counts(self._targets.labels(example) for example in opened["train"][0])
            counts = {label: found_labels[label] for label in codec.labels}
        splits = {split: self._part(split, *both, codec, shelf) for split, both in opened.items()}
        return Prepared(codec, splits, counts, skipped, list(self._modality.cut_off))

    def key(self, found: Mapping[str, Sequence[Example]]) -> str:
        """Differs whenever `prepared` would give something else."""
        about = {
            "version": _VERSION,
            "modality": [type(self._modality).__name__, self._modality.options(), self._modality.augments],
            "answers": self._targets.options(),
            "codec": self._given.to_dict() if self._given else None,
            "skip": self._skip,
            "examples": {split: [self._stamp(example) for example in examples] for split, examples in found.items()},
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:24]

    def write(self, found: Mapping[str, Sequence[Example]], folder: Path) -> None:
        """`prepared`, into an empty folder: about.json and a file of sequences for each split."""

        def shelf(name: str, items: Iterable[Any]) -> Sequence[Any]:
            write_sequences(folder / f"{name}.arrow", items)
            return Sequences(folder / f"{name}.arrow")

        done = self.prepared(found, shelf)
        splits: dict[str, Any] = {}
        for name, split in done.splits.items():
            splits[name] = {"unread": split.unread, "steps": split.steps, "shown": split.shown}
            splits[name] |= {"targets": split.targets.tolist(), "numbers": split.numbers}
            passed = "read" if split.unread else "opened"
            (folder / f"{name}.{passed}.arrow").unlink(missing_ok=True)
        about = {
            "codec": done.codec.to_dict(),
            "training_counts": done.training_counts,
            "skipped": done.skipped,
            "cut_off": done.cut_off,
            "splits": splits,
        }
        (folder / "about.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")

    def load(self, folder: Path) -> Prepared:
        """What `write` wrote."""
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        codec: Any = build(about["codec"], trusted=TRUSTED)
        self._modality.restore(codec)
        splits = {
            name: PreparedSplit(
                Sequences(folder / f"{name}.{'opened' if of['unread'] else 'read'}.arrow"),
                of["unread"],
                of["steps"],
                torch.tensor(of["targets"]),
                of["numbers"],
                of["shown"],
            )
            for name, of in about["splits"].items()
        }
        return Prepared(codec, splits, about["training_counts"], about["skipped"], about["cut_off"])

    def _opened(self, examples: Sequence[Example], kept: list[Example], skipped: list[str]) -> Iterator[Any]:
        """The sources of examples; those that could be opened are added to `kept`."""
        for example in waiting(examples, "examples opened"):
            try:
                source = self._modality.open(example)
            except ValueError as error:
                said = str(error) if str(error).startswith(example.place) else f"{example.place}: {error}"
                if not self._skip:
                    remedy = "skip leaves such examples out and counts them"
                    if isinstance(error, CutOffError):
                        remedy += ", read reads them as far as they go"
                    raise DataError(f"{said}; data.on_error={remedy}") from error
                skipped.append(said)
                continue
            kept.append(example)
            yield source

    def _part(
        self,
        split: str,
        examples: Sequence[Example],
        sources: Sequence[Any],
        codec: LabelCodec | NumberCodec,
        shelf: Store,
    ) -> PreparedSplit:
        steps: list[int] = []
        targets: list[Tensor] = []
        shown: list[str] = []
        numbers: list[list[float]] = []
        unread = split == "train" and self._modality.augments

        def read() -> Iterator[Tensor]:
            for example, source in zip(waiting(examples, "examples read"), sources, strict=True):
                try:
                    frames = None if unread else self._modality.read(source, codec.source)
                    targets.append(self._targets.target(example, codec))
                    numbers.append(self._targets.numbers(example) if isinstance(codec, NumberCodec) else [])
                except ValueError as error:
                    raise DataError(f"{split}, {example.place}: {error}") from error
                steps.append(self._modality.steps(source, codec.source) if frames is None else len(frames))
                shown.append(self._modality.shown(example, source))
                if frames is not None:
                    yield frames

        frames = shelf(f"{split}.read", read())
        return PreparedSplit(sources if unread else frames, unread, steps, torch.stack(targets), numbers, shown)

    def _stamp(self, example: Example) -> list[Any]:
        """Plain data that differ whenever the example does."""
        source = example.source if self._modality.unit == "token" else located(example)
        if isinstance(source, Path):
            source = stamps([source])[0] if is_there(source) else None
        elif isinstance(source, Tensor):
            source = hashlib.sha256(source.contiguous().numpy().tobytes()).hexdigest()
        elif isinstance(source, bytes):
            source = hashlib.sha256(source).hexdigest()
        return [example.place, example.target, source]


def _in_memory(name: str, items: Iterable[Any]) -> Sequence[Any]:
    return list(items)
