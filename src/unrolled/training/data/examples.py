"""Examples with a target, of tables, folders and data sets of the hub, and their division into splits."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.files import find_files, read_lines, suffix_of
from unrolled.training.data.options import Patterns
from unrolled.training.data.rows import Row, Rows, file_rows
from unrolled.training.data.splitting import LabeledSplit
from unrolled.training.data.tables import TABLES

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


def file_examples(
    files: Mapping[str, Patterns], columns: Columns, modality: FileModality, *, beside: Sequence[str] = ()
) -> dict[str, list[Example]]:
    """Returns the examples of tables, and of folders with a folder of files for each label.

    A folder contains a folder for each label, `label/file`, or one for each split, `train/label/file`. With `beside`,
    a file's target is instead the text of the file beside it that has the same name and one of these suffixes.

    Args:
        files: for each split, paths, folders or patterns; those of "train" may contain folders of all splits.
        columns: columns of tables.
        modality: defines which files are one example, and which contain several.
        beside: suffixes of the files with targets.

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
            elif path.suffix.lower() in modality.suffixes and beside:
                found[split].append(
                    Example(path, _text_beside(path, beside), _group_of(path, columns.group), str(path))
                )
            elif path.suffix.lower() in modality.suffixes:
                folder_split, example = _from_folder(path, roots, columns.group, modality.what)
                found[folder_split if split == "train" and folder_split else split].append(example)
            elif suffix_of(path) in TABLES:
                found[split].extend(example_of(row, columns) for row in file_rows(path))
            else:
                raise DataError(f"{path}: examples must be {modality.what} or tables ({', '.join(TABLES)})")
    return dict(found)


def _from_folder(path: Path, roots: Sequence[Path], pattern: str | None, what: str) -> tuple[str | None, Example]:
    root = next((r.resolve() for r in roots if r.is_dir() and path.is_relative_to(r.resolve())), path.parent.parent)
    folders = path.relative_to(root).parts[:-1]
    split = _SPLIT_FOLDERS.get(folders[0].lower()) if len(folders) > 1 else None
    if not folders:
        raise DataError(f"{path}: {what} must be in a folder for each label; give the parent folder, or a table")
    return split, Example(path, folders[-1], _group_of(path, pattern), str(path))


def _group_of(path: Path, pattern: str | None) -> str:
    if pattern is None:
        return ""
    match = re.search(pattern, path.name)
    if match is None:
        raise DataError(f"{path}: its name does not match data.group={pattern!r}")
    return match[1] if match.re.groups else match[0]


def _text_beside(path: Path, suffixes: Sequence[str]) -> str:
    candidates = [path.with_name(path.stem + suffix) for suffix in suffixes]
    found = next((each for each in candidates if each.is_file()), None)
    if found is None:
        names = " or ".join(each.name for each in candidates)
        raise DataError(
            f"{path} has no text: there is no {names} beside it; add it, or give a table of files and texts"
        )
    return "\n".join(read_lines(found))


def example_of(row: Row, columns: Columns) -> Example:
    """Returns the example in a row.

    Raises:
        DataError: a column is missing or empty.
    """
    wanted = [columns.target] if isinstance(columns.target, str) else list(columns.target)
    for role, name in (("source", columns.source), *(("target", name) for name in wanted)):
        cell = row.column(name, f"data.{role}")
        empty = cell is None or (role == "target" and cell == "")
        if empty and not (role == "target" and columns.blank):
            raise DataError(f"{row.place}: column {name!r} is empty")
    target = row.values[wanted[0]] if isinstance(columns.target, str) else [row.values[name] for name in wanted]
    group = "" if columns.group is None else str(row.column(columns.group, "data.group"))
    return Example(row.values[columns.source], target, group, row.place)


def row_examples(rows: Rows, columns: Columns) -> dict[str, list[Example]]:
    """Returns the examples of each split of rows; audio and images of a data set are kept as encoded bytes.

    Raises:
        DataError: a column is missing.
    """
    return {split: [example_of(row, columns) for row in rows.read(split)] for split in rows.splits}


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
