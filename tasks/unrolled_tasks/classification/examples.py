"""Labeled examples of tables, folders and data sets of the hub, and their division into splits."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.files import did_you_mean, find_files, suffix_of
from unrolled.training.data.hub import HubSplits
from unrolled.training.data.splitting import LabeledSplit
from unrolled.training.data.tables import TABLES, read_table

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
    splits: Mapping[str, Sequence[Example]], split: LabeledSplit, *, labeled: bool
) -> dict[str, list[Example]]:
    """Returns splits for training, validation and test; missing splits are split off the training examples.

    Args:
        splits: the given examples.
        split: how they are divided.
        labeled: whether the target of an example is one label, whose proportions can be kept.

    Raises:
        DataError: an unknown group, or too few groups.
    """
    left = {name: list(examples) for name, examples in splits.items()}
    if split.held_out:
        everything = [example for name in SPLITS for example in left.get(name, [])]
        held_out = split.check_held_out([example.group for example in everything])
        left = {"test": [example for example in everything if example.group in held_out]}
        left["train"] = [example._replace(group="") for example in everything if example.group not in held_out]
    training = left.pop("train", [])
    labels = [str(example.target) for example in training] if labeled else None
    divided = split.drawn(labels, [example.group for example in training], list(left))
    left |= {name: [training[row] for row in rows.tolist()] for name, rows in divided.items()}
    return {name: left[name] for name in SPLITS if left.get(name)}


def label_counts(labels: Iterable[Sequence[str]]) -> Counter[str]:
    """Counts the examples with each label, given the labels of each example."""
    return Counter(label for several in labels for label in several)
