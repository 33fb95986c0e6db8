"""Labelled examples: from tables, folders, data sets of the hub and installed packages, and how they are cut."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.files import find_files, nearest, suffix_of
from unrolled.training.data.hub import HubSplits
from unrolled.training.data.tables import TABLES, read_table
from unrolled.wording import counted

Patterns = str | Sequence[str]
_PART_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}


class Example(NamedTuple):
    """What is to be classified, and its answer.

    Attributes:
        source: a text, a path, the bytes of a file, or a tensor.
        target: a label, several of them, or a number, as it was found.
        group: whose it is, such as a speaker; empty for nobody's.
        place: where it stands, for messages and tables.
    """

    source: Any
    target: Any
    group: str
    place: str


class Columns(NamedTuple):
    """Names of columns.

    Attributes:
        source: of what is read.
        target: of what is to be said of it.
        group: of what keeps examples together; a regular expression where a folder's file names are looked at.
        blank: an answer may be empty, as where there may be any number of labels.
    """

    source: str
    target: str | Sequence[str]
    group: str | None
    blank: bool = False

    def check(self) -> None:
        """Refuses a regular expression for groups that is none, or that has no split to take."""
        try:
            re.compile(self.group or "")
        except re.error as error:
            raise DataError(f"group={self.group!r} is no column and no regular expression: {error}") from error


class Openable(Protocol):
    """What is known of a modality's files."""

    suffixes: ClassVar[tuple[str, ...]]
    what: ClassVar[str]

    def file_examples(self, path: Path, columns: Columns) -> Iterable[Example] | None: ...


def file_examples(files: Mapping[str, Patterns], columns: Columns, modality: Openable) -> dict[str, list[Example]]:
    """Examples of tables, or of folders whose files are examples and whose folders are labels.

    A folder has a folder for each label, `label/file`, or one for each split above them, `train/label/file`.

    Args:
        files: for each split, paths, folders or patterns; "train" alone may hold folders of all splits.
        columns: of tables.
        modality: knows which files are an example each, and which hold several of its own kind.

    Raises:
        DataError: files that are not there, or a column that is missing.
    """
    found: dict[str, list[Example]] = defaultdict(list)
    for split, patterns in files.items():
        roots = [Path(p).expanduser() for p in ([patterns] if isinstance(patterns, str) else patterns)]
        for path in find_files(patterns, f"{split} files", suffixes=modality.suffixes or TABLES):
            several = modality.file_examples(path, columns)
            if several is not None:
                found[split].extend(several)
            elif path.suffix.lower() in modality.suffixes:
                for_part, example = _from_folder(path, roots, columns.group, modality.what)
                found[for_part if split == "train" and for_part else split].append(example)
            elif suffix_of(path) in TABLES:
                found[split].extend(_table(path, columns))
            else:
                raise DataError(f"{path}: examples are {modality.what} or tables ({', '.join(TABLES)})")
    return dict(found)


def _from_folder(path: Path, roots: Sequence[Path], pattern: str | None, what: str) -> tuple[str | None, Example]:
    root = next((r.resolve() for r in roots if r.is_dir() and path.is_relative_to(r.resolve())), path.parent.parent)
    folders = path.relative_to(root).parts[:-1]
    split = _PART_FOLDERS.get(folders[0].lower()) if len(folders) > 1 else None
    if not folders:
        raise DataError(f"{path}: {what} lie in a folder for each label; give the folder above, or a table")
    group = ""
    if pattern is not None:
        match = re.search(pattern, path.name)
        if match is None:
            raise DataError(f"{path}: its name has no group by data.group={pattern!r}")
        group = match[1] if match.re.groups else match[0]
    return split, Example(path, folders[-1], group, str(path))


def _table(path: Path, columns: Columns) -> Iterator[Example]:
    for place, row in read_table(path):
        yield example_of(row, columns, place)


def example_of(row: Mapping[str, Any], columns: Columns, place: str) -> Example:
    """The example in a row.

    Raises:
        DataError: a column is missing or holds nothing.
    """
    wanted = [columns.target] if isinstance(columns.target, str) else list(columns.target)
    for role, name in (("source", columns.source), *(("target", name) for name in wanted)):
        if name not in row:
            raise DataError(
                f"{place}: no column {name!r}{nearest(name, row)}; there is {', '.join(map(str, row)) or 'none'}. "
                f"Name it by data.{role}"
            )
        empty = row[name] is None or (role == "target" and row[name] == "")
        if empty and not (role == "target" and columns.blank):
            raise DataError(f"{place}: column {name!r} holds nothing")
    if columns.group is not None and columns.group not in row:
        raise DataError(f"{place}: no column {columns.group!r}{nearest(columns.group, row)}. Name it by data.group")
    source = row[columns.source]
    answer = row[wanted[0]] if isinstance(columns.target, str) else [row[name] for name in wanted]
    return Example(source, answer, str(row[columns.group]) if columns.group else "", place)


def hub_examples(splits: HubSplits, columns: Columns) -> dict[str, list[Example]]:
    """Examples of a data set that `datasets` loads; sound and pictures stay the bytes that they are stored as.

    Raises:
        DataError: a column is missing.
    """
    found: dict[str, list[Example]] = {}
    for split, loaded in splits.splits().items():
        rows, names = _undecoded(loaded, columns)
        places = ((f"{splits}, {split} row {number}", row) for number, row in enumerate(rows, start=1))
        found[split] = [example_of(_named(row, columns, names), columns, place) for place, row in places]
    return found


def _undecoded(split: Any, columns: Columns) -> tuple[Any, Sequence[str] | None]:
    """The split without what `datasets` would decode by libraries of its own choice, and the names of its classes."""
    features = split.features or {}
    source: Any = features.get(columns.source)
    label: Any = features.get(str(columns.target))
    if hasattr(source, "decode"):
        split = split.cast_column(columns.source, type(source)(decode=False))
    return split, getattr(label, "names", None)


def _named(row: Mapping[str, Any], columns: Columns, names: Sequence[str] | None) -> Mapping[str, Any]:
    answer = columns.target
    if names is None or not isinstance(answer, str) or not isinstance(row.get(answer), int):
        return row
    return {**row, answer: names[row[answer]]}


def split_labelled(
    splits: Mapping[str, Sequence[Example]],
    split_fractions: Sequence[float],
    held_out: Sequence[str],
    *,
    stratify: bool,
    seed: int,
) -> dict[str, list[Example]]:
    """Parts for training, validation and test; those without examples of their own are cut off the training split.

    Args:
        splits: as they were found.
        split_fractions: fractions for training, validation and test.
        held_out: groups that make up the test, whatever split they were in; all others are learned from.
        stratify: keep the labels' shares; otherwise at random. Where examples have groups, a group is never cut.
        seed: decides which.

    Raises:
        DataError: a group that is not there.
    """
    left = {split: list(examples) for split, examples in splits.items()}
    if held_out:
        everything = [example for split in SPLITS for example in left.get(split, [])]
        there = {example.group for example in everything}
        for group in held_out:
            if group not in there:
                raise DataError(
                    f"held_out: there is no group {group!r}{nearest(group, there)}; groups: "
                    f"{', '.join(sorted(there)[:20]) or 'none'}; data.group says where they stand"
                )
        left = {"test": [e for e in everything if e.group in held_out]}
        left["train"] = [e._replace(group="") for e in everything if e.group not in held_out]
    whole = len(left.get("train", []))
    for number, split in ((2, "test"), (1, "validation")):
        wanted = round(whole * split_fractions[number])
        if split not in left and wanted and "train" in left:
            taken = _chosen(left["train"], wanted, stratify=stratify, seed=seed + number)
            left[split] = [e for index, e in enumerate(left["train"]) if index in taken]
            left["train"] = [e for index, e in enumerate(left["train"]) if index not in taken]
    return {split: left[split] for split in SPLITS if left.get(split)}


def _chosen(examples: Sequence[Example], wanted: int, *, stratify: bool, seed: int) -> set[int]:
    generator = np.random.default_rng(seed)
    if any(example.group for example in examples):
        return _whole_groups(examples, wanted, generator)
    if not stratify:
        return set(generator.permutation(len(examples))[:wanted].tolist())
    order = generator.permutation(len(examples)).tolist()
    by_label: dict[str, list[int]] = defaultdict(list)
    for index in order:
        by_label[str(examples[index].target)].append(index)
    # Each example's place within its label, from 0 to 1: the first `wanted` have all labels in their shares.
    placed = [
        ((place + 0.5) / len(indices), index) for indices in by_label.values() for place, index in enumerate(indices)
    ]
    return {index for _, index in sorted(placed)[:wanted]}


def _whole_groups(examples: Sequence[Example], wanted: int, generator: np.random.Generator) -> set[int]:
    members: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        members[example.group].append(index)
    chosen: list[int] = []
    for number in generator.permutation(len(members)).tolist():
        group = members[sorted(members)[number]]
        if not chosen or abs(len(chosen) + len(group) - wanted) < abs(len(chosen) - wanted):
            chosen += group
    if len(chosen) == len(examples):
        raise DataError(
            f"{counted(len(members), 'group')} cannot be cut into splits; there have to be two or more for each cut"
        )
    return set(chosen)


def label_counts(answers: Iterable[Sequence[str]]) -> Counter[str]:
    """How many examples have each label."""
    return Counter(label for labels in answers for label in labels)
