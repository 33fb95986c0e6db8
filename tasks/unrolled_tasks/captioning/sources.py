"""Where captioned images come from: glyphs, tables beside image files, Parquet, Karpathy's splits, sets of the hub."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from os.path import normpath
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.training.data.arrays import Picture
from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.files import find_files, is_there, nearest, read_text, stamps
from unrolled.training.data.hub import HubSplits
from unrolled.training.data.tables import TABLES, parsed_json, read_table, single_spaced

Patterns = str | Sequence[str]
_PATHS = ("image", "file_name", "filename", "path")  # columns that hold an image or name its file
_KARPATHY = {"train": "train", "restval": "train", "val": "validation", "validation": "validation", "test": "test"}


class Captioned(NamedTuple):
    """An image and what people say of it.

    Attributes:
        picture: the bytes of a file, or its path.
        captions: single-spaced, none empty.
        place: where it stands, for messages and pages.
    """

    picture: Picture
    captions: tuple[str, ...]
    place: str


class Source(ABC):
    """Captioned images for training, and maybe others for validation and test."""

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The splits with images of their own: "train" and any other of SPLITS."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Plain data that differ whenever the images or their captions do."""

    @abstractmethod
    def images(self, split: str) -> Iterator[Captioned]:
        """A split's images, in a fixed order."""


class TableSource(Source):
    """Files with an image in each row: Parquet that holds it, or a table that names its file.

    A folder with images and a metadata.jsonl (an imagefolder, as the library `datasets` calls it) is such a table; what
    it doesn't name is an image without a caption. Rows that name the same file are one image with several captions.

    Args:
        files: for each split, paths, folders or glob patterns, one or several.
        image: the column of the image; None finds image, file_name, filename or path.
        captions: pattern of the columns that hold captions, each a text or a list of texts.
        folder: where named files lie; None: beside their table.
    """

    def __init__(
        self, files: Mapping[str, Patterns], image: str | None, captions: str, folder: str | None = None
    ) -> None:
        self._files, self._columns, self._folder = dict(files), (image, captions), folder

    def __str__(self) -> str:
        files = ", ".join(str(patterns) for patterns in self._files.values())
        first = next((row for path in self._paths("train") for _, row in read_table(path)), {})
        columns = caption_columns(first, self._columns[1])
        # Of several, one may be no caption but match the pattern, such as caption_id.
        return f"{files} (captions: {', '.join(columns)})" if len(columns) > 1 else files

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._files)

    def fingerprint(self) -> dict[str, Any]:
        about: dict[str, Any] = {"columns": self._columns, "folder": self._folder}
        about |= {split: stamps(self._paths(split)) for split in self.splits}
        if all(self._holds_images(path) for split in self.splits for path in self._paths(split)):
            return about
        return {**about, "named": [named_stamps(self.images(split)) for split in self.splits]}

    def images(self, split: str) -> Iterator[Captioned]:
        """As for every source.

        Raises:
            DataError: a table that is not there or cannot be read, or that lacks a column.
        """
        for path in self._paths(split):
            folder = path.parent if self._folder is None else Path(self._folder).expanduser()
            rows = (captioned(row, *self._columns, folder, place) for place, row in read_table(path))
            yield from with_unnamed(joined(rows), folder) if self._is_of_folder(path) else joined(rows)

    def _holds_images(self, path: Path) -> bool:
        """Whether its first row holds the bytes of an image instead of naming a file."""
        for place, row in read_table(path):
            return captioned(row, *self._columns, path.parent, place).picture.content is not None
        return True

    def _is_of_folder(self, path: Path) -> bool:
        """Whether it is the one table that says what all images in its folder are."""
        tables = {each for split in self.splits for each in self._paths(split) if each.parent == path.parent}
        return self._folder is None and path.name.startswith("metadata.") and len(tables) == 1

    def _paths(self, split: str) -> list[Path]:
        return find_files(self._files[split], f"{split} files", suffixes=TABLES)


class KarpathySource(Source):
    """One JSON file with the images, sentences and splits of COCO, Flickr8k or Flickr30k (Karpathy & Fei-Fei 2015).

    Args:
        file: such as dataset_flickr8k.json; its "restval" images are for training.
        folder: where the images lie.
    """

    def __init__(self, file: str, folder: str) -> None:
        self._file, self._folder = Path(file).expanduser(), Path(folder).expanduser()

    def __str__(self) -> str:
        return str(self._file)

    @property
    def splits(self) -> tuple[str, ...]:
        there = {_split_of(image) for image in self._listed()}
        return tuple(split for split in SPLITS if split in there or split == "train")

    def fingerprint(self) -> dict[str, Any]:
        named = [named_stamps(self.images(split)) for split in self.splits]
        return {"file": stamps(find_files(str(self._file))), "folder": str(self._folder), "named": named}

    def images(self, split: str) -> Iterator[Captioned]:
        """As for every source.

        Raises:
            DataError: a file that is none of Karpathy's.
        """
        for number, image in enumerate(self._listed()):
            if _split_of(image) != split:
                continue
            place = f"{self._file}, image {number}"
            if "filename" not in image or not isinstance(image.get("sentences"), list):
                raise DataError(f'{place}: no "filename" and list of "sentences"; is this one of Karpathy\'s files?')
            path = self._folder / image.get("filepath", "") / image["filename"]
            yield Captioned(Picture(None, str(path)), _texts(image["sentences"], place), str(path))

    def _listed(self) -> list[Mapping[str, Any]]:
        (path,) = find_files(str(self._file), suffixes=(".json",))
        found = parsed_json("".join(read_text(path)), str(path))
        if not isinstance(found, dict) or not isinstance(found.get("images"), list):
            raise DataError(f'{path} has no list of "images"; is this one of Karpathy\'s files?')
        return found["images"]


class HubSource(Source):
    """A data set that `datasets` loads, with a column of images and one or several of captions.

    Args:
        dataset: see `HubSplits`.
        options: see `HubSplits`.
        image: as for tables.
        captions: likewise.
    """

    def __init__(self, dataset: str, options: Mapping[str, Any], image: str | None, captions: str) -> None:
        self._splits, self._columns = HubSplits(dataset, options), (image, captions)

    def __str__(self) -> str:
        return str(self._splits)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._splits.splits())

    def fingerprint(self) -> dict[str, Any]:
        return {"columns": self._columns, **self._splits.fingerprint()}

    def images(self, split: str) -> Iterator[Captioned]:
        """As for every source.

        Raises:
            DataError: there are no such columns.
        """
        import datasets

        rows: Any = self._splits.splits()[split]
        for name, feature in (rows.features or {}).items():
            if isinstance(feature, datasets.Image):  # the bytes as they are, to be decoded where they are needed
                rows = rows.cast_column(name, datasets.Image(decode=False))
        places = ((f"{self}, {split} row {number}", row) for number, row in enumerate(rows, start=1))
        yield from joined(captioned(row, *self._columns, Path(), place) for place, row in places)


def _split_of(image: Mapping[str, Any]) -> str:
    split = image.get("split", "train")
    if split not in _KARPATHY:
        raise DataError(f"split {split!r} of image {image.get('filename')} is one of {', '.join(_KARPATHY)}")
    return _KARPATHY[split]


def caption_columns(row: Mapping[Any, Any], pattern: str) -> list[Any]:
    """The columns of a row whose names match."""
    return [name for name in row if fnmatch(str(name), pattern)]


def captioned(row: Mapping[Any, Any], image: str | None, captions: str, folder: Path, place: str) -> Captioned:
    """The image and the captions in a row.

    Raises:
        DataError: a column is missing, or holds something else.
    """
    there = ", ".join(map(str, row)) or "none"
    found = [name for name in ([image] if image else _PATHS) if name in row]
    if not found:
        wanted = f"column {image!r}{nearest(image, row)}" if image else f"column {', '.join(_PATHS)}"
        raise DataError(f"{place}: no {wanted}; there is {there}. Name it by data.image")
    columns = [name for name in caption_columns(row, captions) if name != found[0]]
    if not columns:
        raise DataError(
            f"{place}: no column matches {captions!r}{nearest(captions.strip('*'), row)}; there is {there}. "
            "Name the columns by data.captions, a pattern such as caption_*"
        )
    texts = tuple(text for name in columns for text in _texts(row[name], f"{place}, column {name!r}"))
    return Captioned(_picture(row[found[0]], folder, f"{place}, column {found[0]!r}"), texts, place)


def joined(images: Iterator[Captioned]) -> Iterator[Captioned]:
    """Rows that name the same file as one image with the captions of all; those that hold their image as they are."""
    named: dict[str, Captioned] = {}
    for one in images:
        path = one.picture.path
        if one.picture.content is not None:
            yield one
        elif path in named:
            named[path] = named[path]._replace(captions=named[path].captions + one.captions)
        else:
            named[path] = one
    yield from named.values()


def with_unnamed(images: Iterator[Captioned], folder: Path) -> Iterator[Captioned]:
    """The images, and behind them those in the folder that none of them is, without captions."""
    from PIL import Image

    named: set[str] = set()
    for one in images:
        named.add(normpath(one.picture.path))
        yield one
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in readable and str(path) not in named:
            yield Captioned(Picture(None, str(path)), (), str(path))


def named_stamps(images: Iterator[Captioned]) -> str:
    """A digest that differs when one of the image files that are named does."""
    paths = (Path(one.picture.path) for one in images if one.picture.content is None)
    return hashlib.sha256(repr(stamps(path for path in paths if is_there(path))).encode()).hexdigest()


def _picture(value: Any, folder: Path, place: str) -> Picture:
    if isinstance(value, Mapping):  # how `datasets` and its Parquet files hold an image
        content, path = value.get("bytes"), value.get("path")
        if content is not None or path is not None:
            return Picture(content, path or "") if content is not None else Picture(None, str(folder / str(path)))
    elif isinstance(value, bytes):
        return Picture(value, "")
    elif isinstance(value, str) and value:
        return Picture(None, str(folder / value))
    raise DataError(f"{place} holds no image: expected a path, the bytes of a file, or both as `datasets` keeps them")


def _texts(value: Any, place: str) -> tuple[str, ...]:
    """Captions in a cell: a text, a list of texts, or of objects with a "raw" text as in Karpathy's files."""
    listed = value if isinstance(value, (list, tuple)) else [value]
    texts: list[str] = []
    for item in listed:
        text = item.get("raw", "") if isinstance(item, Mapping) else item
        if not isinstance(text, str | None):
            raise DataError(f"{place} holds no caption but {text!r:.80}")
        if text and (plain := single_spaced(text)):
            texts.append(plain)
    return tuple(texts)
