"""Where sentence pairs come from: CLDR phrases, local files, a data set of the Hugging Face hub."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.training.data import DataError
from unrolled_tasks.translation.phrases import part_of, phrases

PARTS = ("train", "validation", "test")
_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
Files = str | Sequence[str]


class Pair(NamedTuple):
    """A sentence and its translation."""

    source: str
    target: str
    kind: str = ""


def phrase_pairs(source: str, target: str, count: int, seed: int, cut: Sequence[float]) -> dict[str, list[Pair]]:
    """CLDR phrases, dealt to the parts by the source phrase."""
    shares = (cut[0], cut[1], cut[2])
    parts: dict[str, list[Pair]] = {part: [] for part in PARTS}
    for phrase in phrases(source, target, count, seed):
        parts[part_of(phrase, shares)].append(Pair(phrase.source, phrase.target, phrase.kind))
    return {part: pairs for part, pairs in parts.items() if pairs}


def file_pairs(files: Mapping[str, Files | None], source: str, target: str) -> dict[str, list[Pair]]:
    """Pairs of each part: from one table with named columns, or from two text files with a sentence a line.

    Raises:
        DataError: files that are missing, of an unknown kind, undecodable, or of unequal length.
    """
    return {part: list(_read(given, source, target)) for part, given in files.items() if given is not None}


def hub_pairs(dataset: str, options: Mapping[str, Any], source: str, target: str) -> dict[str, list[Pair]]:
    """Pairs of a set that `datasets.load_dataset` finds; `splits` in the options names its parts.

    Raises:
        DataError: a set that cannot be loaded, or lacks a split or a column.
    """
    options = dict(options)
    names: Mapping[str, str] = options.pop("splits", None) or {}
    splits = _load(dataset, options)
    chosen = {part: names.get(part, part) for part in PARTS if part in names or part in splits}
    for part, name in chosen.items():
        if name not in splits:
            raise DataError(
                f"data set {dataset!r} has no split {name!r}; it has {', '.join(splits)}. "
                f"Name it by dataset_options.splits.{part}"
            )
    return {part: list(_rows(splits[name], source, target, dataset)) for part, name in chosen.items()}


def _read(files: Files, source: str, target: str) -> Iterator[Pair]:
    if not isinstance(files, str) and len(files) == 2 and not any(_builder(Path(name)) for name in files):
        return _two_texts(Path(files[0]), Path(files[1]))
    tables = [files] if isinstance(files, str) else list(files)
    return (pair for name in tables for pair in _table(Path(name), source, target))


def _two_texts(source: Path, target: Path) -> Iterator[Pair]:
    sides = _lines(source), _lines(target)
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{source} has {len(sides[0])} lines and {target} has {len(sides[1])}: from line "
            f"{min(map(len, sides)) + 1} on one has no partner"
        )
    return (Pair(*pair) for pair in zip(*sides, strict=True))


def _lines(path: Path) -> list[str]:
    _expect_file(path)
    lines: list[str] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                lines.append(line.decode().strip())
            except UnicodeDecodeError as error:
                raise DataError(f"{path}, line {number}: not UTF-8 ({error.reason}, byte {error.start})") from None
    return lines


def _builder(path: Path) -> str | None:
    suffixes = path.suffixes[:-1] if path.suffix == ".gz" else path.suffixes
    return _BUILDERS.get(suffixes[-1]) if suffixes else None


def _table(path: Path, source: str, target: str) -> Iterator[Pair]:
    _expect_file(path)
    builder = _builder(path)
    if builder is None:
        raise DataError(
            f"{path}: pairs come from {', '.join(_BUILDERS)} (also .gz), or from two text files: "
            "data.files=[train.en,train.de]"
        )
    options: dict[str, Any] = {"data_files": str(path)}
    if ".tsv" in path.suffixes:
        options |= {"sep": "\t", "quoting": 3}  # as it is: quotation marks are text
    return _rows(_load(builder, options)["train"], source, target, str(path))


def _rows(split: Any, source: str, target: str, name: str) -> Iterator[Pair]:
    features = split.features
    nested = "translation" in features and source not in features
    columns = list(features["translation"].keys() if nested else features)
    for column in (source, target):
        if column not in columns:
            near = get_close_matches(column, columns, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise DataError(
                f"{name} has no column {column!r}{hint} It has {', '.join(columns)}; name them by data.source and "
                "data.target"
            )
    for row in split.select_columns(["translation"] if nested else [source, target]):
        sides = row["translation"] if nested else row
        yield Pair(" ".join(str(sides[source] or "").split()), " ".join(str(sides[target] or "").split()))


def _load(name: str, options: Mapping[str, Any]) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, **options)
    except Exception as error:  # a builder may raise anything
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"cannot load {options.get('data_files', name)!r}: {said}") from error


def _expect_file(path: Path) -> None:
    if not path.is_file():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, beside, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise DataError(f"no file {path} (looked from {Path.cwd()}){hint}")
