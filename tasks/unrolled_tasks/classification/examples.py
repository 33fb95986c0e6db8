"""Labeled examples of tables, folders and data sets of the hub, and their division into splits."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.files import did_you_mean, find_files, suffix_of
from unrolled.training.data.hub import HubSplits
from unrolled.training.data.tables import TABLES, read_table
from unrolled.wording import counted

Patterns = str | Sequence[str]
_SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}


class Example(NamedTuple):
    """A source and its target.

    Attributes:
        source: a text, a path, the bytes of a file, or a tensor.
        target: a label, several labels, or a number, as in the file.
        group: a group, such as a speaker; empty for none.
        place: path or row, for messages and tables.
    """

    source: Any
    target: Any
    group: str
    place: str


class Columns(NamedTuple):
    """Names of columns.

    Attributes:
        source: column of the source.
        target: column of the target, or several.
        group: column of the group; for files in a folder, a regular expression for their names.
        blank: whether a target may be empty, as with any number of labels.
    """

    source: str
    target: str | Sequence[str]
    group: str | None
    blank: bool = False

    def check(self) -> None:
        """Checks the regular expression for groups.

        Raises:
            DataError: it is invalid.
        """
        try:
            re.compile(self.group or "")
        except re.error as error:
            raise DataError(f"group={self.group!r} is not a valid column or regular expression: {error}") from error


class FileModality(Protocol):
    """The parts of a modality that find examples in files."""

    suffixes: ClassVar[tuple[str, ...]]
    what: ClassVar[str]

    def file_examples(self, path: Path, columns: Columns) -> Iterable[Example] | None: ...


def file_examples(files: Mapping[str, Patterns], columns: Columns, modality: FileModality) -> dict[str, list[Example]]:
    """Returns the examples of tables, and of folders with a folder of files for each label.

    A folder contains a folder for each label, `label/file`, or one for each split, `train/label/file`.

    Args:
        files: for each split, paths, folders or patterns; those of "train" may contain folders of all splits.
        columns: columns of tables.
        modality: defines which files are one example, and which contain several.

    Raises:
        DataError: files that do not exist, or a missing column.
    """
    found: dict[str, list[Example]] = defaultdict(list)
    for split, patterns in files.items():
        roots = [Path(p).expanduser() for p in ([patterns] if isinstance(patterns, str) else patterns)]
        for path in find_files(patterns, f"{split} files", suffixes=modality.suffixes or TABLES):
            several = modality.file_examples(path, columns)
            if several is not None:
                found[split].extend(several)
            elif path.suffix.lower() in modality.suffixes:
                folder_split, example = _from_folder(path, roots, columns.group, modality.what)
                found[folder_split if split == "train" and folder_split else split].append(example)
            elif suffix_of(path) in TABLES:
                found[split].extend(_table(path, columns))
            else:
                raise DataError(f"{path}: examples must be {modality.what} or tables ({', '.join(TABLES)})")
    return dict(found)


def _from_folder(path: Path, roots: Sequence[Path], pattern: str | None, what: str) -> tuple[str | None, Example]:
    root = next((r.resolve() for r in roots if r.is_dir() and path.is_relative_to(r.resolve())), path.parent.parent)
    folders = path.relative_to(root).parts[:-1]
    split = _SPLIT_FOLDERS.get(folders[0].lower()) if len(folders) > 1 else None
    if not folders:
        raise DataError(f"{path}: {what} must be in a folder for each label; give the parent folder, or a table")
    group = ""
    if pattern is not None:
        match = re.search(pattern, path.name)
        if match is None:
            raise DataError(f"{path}: its name does not match data.group={pattern!r}")
        group = match[1] if match.re.groups else match[0]
    return split, Example(path, folders[-1], group, str(path))


def _table(path: Path, columns: Columns) -> Iterator[Example]:
    for place, row in read_table(path):
        yield example_of(row, columns, place)


def example_of(row: Mapping[str, Any], columns: Columns, place: str) -> Example:
    """Returns the example in a row.

    Raises:
        DataError: a column is missing or empty.
    """
    wanted = [columns.target] if isinstance(columns.target, str) else list(columns.target)
    for role, name in (("source", columns.source), *(("target", name) for name in wanted)):
        if name not in row:
            raise DataError(
                f"{place}: no column {name!r}{did_you_mean(name, row)}; the columns are "
                f"{', '.join(map(str, row)) or 'none'}. Set data.{role}"
            )
        empty = row[name] is None or (role == "target" and row[name] == "")
        if empty and not (role == "target" and columns.blank):
            raise DataError(f"{place}: column {name!r} is empty")
    if columns.group is not None and columns.group not in row:
        raise DataError(
            f"{place}: no column {columns.group!r}{did_you_mean(columns.group, row)}. Name it by data.group"
        )
    source = row[columns.source]
    target = row[wanted[0]] if isinstance(columns.target, str) else [row[name] for name in wanted]
    return Example(source, target, str(row[columns.group]) if columns.group else "", place)


def hub_examples(splits: HubSplits, columns: Columns) -> dict[str, list[Example]]:
    """Returns the examples of a data set of `datasets`; audio and images are kept as encoded bytes.

    Raises:
        DataError: a column is missing.
    """
    found: dict[str, list[Example]] = {}
    for split, loaded in splits.splits().items():
        undecoded, names = _undecoded(loaded, columns)
        rows = ((f"{splits}, {split} row {number}", row) for number, row in enumerate(undecoded, start=1))
        found[split] = [example_of(_named(row, columns, names), columns, place) for place, row in rows]
    return found


def _undecoded(split: Any, columns: Columns) -> tuple[Any, Sequence[str] | None]:
    """Returns the split without decoding of its source by `datasets`, and the names of its classes."""
    features = split.features or {}
    source: Any = features.get(columns.source)
    label: Any = features.get(str(columns.target))
    if hasattr(source, "decode"):
        split = split.cast_column(columns.source, type(source)(decode=False))
    return split, getattr(label, "names", None)


def _named(row: Mapping[str, Any], columns: Columns, names: Sequence[str] | None) -> Mapping[str, Any]:
    target = columns.target
    if names is None or not isinstance(target, str) or not isinstance(row.get(target), int):
        return row
    return {**row, target: names[row[target]]}


def split_labeled(
    splits: Mapping[str, Sequence[Example]],
    split_fractions: Sequence[float],
    held_out: Sequence[str],
    *,
    stratify: bool,
    seed: int,
) -> dict[str, list[Example]]:
    """Returns splits for training, validation and test; missing splits are split off the training examples.

    Args:
        splits: the given examples.
        split_fractions: fractions for training, validation and test.
        held_out: groups that are the test split, whatever split they were in; all others are for training.
        stratify: keep the proportions of labels; otherwise divide at random. If examples have groups, no group is
            divided.
        seed: seed of the division.

    Raises:
        DataError: an unknown group.
    """
    left = {split: list(examples) for split, examples in splits.items()}
    if held_out:
        everything = [example for split in SPLITS for example in left.get(split, [])]
        there = {example.group for example in everything}
        for group in held_out:
            if group not in there:
                raise DataError(
                    f"held_out: there is no group {group!r}{did_you_mean(group, there)}; groups: "
                    f"{', '.join(sorted(there)[:20]) or 'none'}; data.group is their column"
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
    # Examples are sorted by their position within their label, from 0 to 1, so that the first `wanted` are stratified.
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
            f"{counted(len(members), 'group')} cannot be divided into splits; each division needs two or more groups"
        )
    return set(chosen)


def label_counts(labels: Iterable[Sequence[str]]) -> Counter[str]:
    """Counts the examples with each label, given the labels of each example."""
    return Counter(label for several in labels for label in several)
