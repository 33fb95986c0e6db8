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
from unrolled_tasks.classification.answers import Answers
from unrolled_tasks.classification.examples import Example, label_counts
from unrolled_tasks.classification.media import Medium, located

_VERSION = 4  # raise it when the same options lead to other numbers

Shelf = Callable[[str, Iterable[Any]], Sequence[Any]]  # puts things down under a name, to be taken from anywhere


class Part(NamedTuple):
    """What is kept of a part's examples, and what is known of each."""

    kept: Sequence[Any]  # what the network reads of them
    unread: bool  # what is kept are sources as they were opened, since training changes them at random each time
    steps: list[int]
    targets: Tensor  # as the network learns them
    numbers: list[list[float]]  # answers in their own units; empty for labels
    shown: list[str]


class Prepared(NamedTuple):
    """Parts that can be trained on and scored."""

    codec: LabelCodec | NumberCodec
    parts: dict[str, Part]
    training_counts: dict[str, int]  # of each label
    skipped: list[str]  # what could not be opened, and why
    cut_off: list[str]  # what was opened as far as it goes


class Preparation:
    """From examples to what a network reads and answers.

    Args:
        medium: opens and reads them.
        answers: understands what they are.
        given: the codec of a trained network, instead of one fitted on the training part.
        skip: what cannot be opened is left out and counted.
    """

    def __init__(self, medium: Medium, answers: Answers, given: LabelCodec | NumberCodec | None, *, skip: bool) -> None:
        self._medium, self._answers, self._given, self._skip = medium, answers, given, skip

    def prepared(self, found: Mapping[str, Sequence[Example]], shelf: Shelf | None = None) -> Prepared:
        """Opens and reads all examples of all parts.

        Args:
            found: the examples of each part.
            shelf: where sources and frames are put down; None for memory.

        Raises:
            DataError: an example that cannot be used, or nothing that can be learnt from.
        """
        shelf = shelf or _in_memory
        # Texts lie in memory with their examples, whatever is done with what is read of them.
        opening = shelf if self._medium.unit == "frame" else _in_memory
        opened: dict[str, tuple[list[Example], Sequence[Any]]] = {}
        skipped: list[str] = []
        for part, examples in found.items():
            kept: list[Example] = []
            sources = opening(f"{part}.opened", self._opened(examples, kept, skipped))
            if kept:
                opened[part] = kept, sources
        codec = self._given or self._answers.fit(*opened.get("train", ([], [])), self._medium)
        counts: dict[str, int] = {}
        if isinstance(codec, LabelCodec) and "train" in opened:
            found_labels = label_counts(self._answers.labels(example) for example in opened["train"][0])
            counts = {label: found_labels[label] for label in codec.labels}
        parts = {part: self._part(part, *both, codec, shelf) for part, both in opened.items()}
        return Prepared(codec, parts, counts, skipped, list(self._medium.cut_off))

    def key(self, found: Mapping[str, Sequence[Example]]) -> str:
        """Differs whenever `prepared` would give something else."""
        about = {
            "version": _VERSION,
            "medium": [type(self._medium).__name__, self._medium.options(), self._medium.augments],
            "answers": self._answers.options(),
            "codec": self._given.to_dict() if self._given else None,
            "skip": self._skip,
            "examples": {part: [self._stamp(example) for example in examples] for part, examples in found.items()},
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:24]

    def write(self, found: Mapping[str, Sequence[Example]], folder: Path) -> None:
        """`prepared`, into an empty folder: about.json and a file of sequences for each part."""

        def shelf(name: str, items: Iterable[Any]) -> Sequence[Any]:
            write_sequences(folder / f"{name}.arrow", items)
            return Sequences(folder / f"{name}.arrow")

        done = self.prepared(found, shelf)
        parts: dict[str, Any] = {}
        for name, part in done.parts.items():
            parts[name] = {"unread": part.unread, "steps": part.steps, "shown": part.shown}
            parts[name] |= {"targets": part.targets.tolist(), "numbers": part.numbers}
            passed = "read" if part.unread else "opened"
            (folder / f"{name}.{passed}.arrow").unlink(missing_ok=True)
        about = {
            "codec": done.codec.to_dict(),
            "training_counts": done.training_counts,
            "skipped": done.skipped,
            "cut_off": done.cut_off,
            "parts": parts,
        }
        (folder / "about.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")

    def load(self, folder: Path) -> Prepared:
        """What `write` wrote."""
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        codec: Any = build(about["codec"], trusted=TRUSTED)
        self._medium.restore(codec)
        parts = {
            name: Part(
                Sequences(folder / f"{name}.{'opened' if of['unread'] else 'read'}.arrow"),
                of["unread"],
                of["steps"],
                torch.tensor(of["targets"]),
                of["numbers"],
                of["shown"],
            )
            for name, of in about["parts"].items()
        }
        return Prepared(codec, parts, about["training_counts"], about["skipped"], about["cut_off"])

    def _opened(self, examples: Sequence[Example], kept: list[Example], skipped: list[str]) -> Iterator[Any]:
        """The sources of examples; those that could be opened are added to `kept`."""
        for example in waiting(examples, "examples opened"):
            try:
                source = self._medium.open(example)
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
        part: str,
        examples: Sequence[Example],
        sources: Sequence[Any],
        codec: LabelCodec | NumberCodec,
        shelf: Shelf,
    ) -> Part:
        steps: list[int] = []
        targets: list[Tensor] = []
        shown: list[str] = []
        numbers: list[list[float]] = []
        unread = part == "train" and self._medium.augments

        def read() -> Iterator[Tensor]:
            for example, source in zip(waiting(examples, "examples read"), sources, strict=True):
                try:
                    frames = None if unread else self._medium.read(source, codec.source)
                    targets.append(self._answers.target(example, codec))
                    numbers.append(self._answers.numbers(example) if isinstance(codec, NumberCodec) else [])
                except ValueError as error:
                    raise DataError(f"{part}, {example.place}: {error}") from error
                steps.append(self._medium.steps(source, codec.source) if frames is None else len(frames))
                shown.append(self._medium.shown(example, source))
                if frames is not None:
                    yield frames

        frames = shelf(f"{part}.read", read())
        return Part(sources if unread else frames, unread, steps, torch.stack(targets), numbers, shown)

    def _stamp(self, example: Example) -> list[Any]:
        """Plain data that differ whenever the example does."""
        source = example.source if self._medium.unit == "token" else located(example)
        if isinstance(source, Path):
            source = stamps([source])[0] if is_there(source) else None
        elif isinstance(source, Tensor):
            source = hashlib.sha256(source.contiguous().numpy().tobytes()).hexdigest()
        elif isinstance(source, bytes):
            source = hashlib.sha256(source).hexdigest()
        return [example.place, example.answer, source]


def _in_memory(name: str, items: Iterable[Any]) -> Sequence[Any]:
    return list(items)
