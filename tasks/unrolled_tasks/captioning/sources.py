"""Sources of captioned images: glyphs, tables beside image files, Parquet, Karpathy's splits, data sets of the hub."""

import hashlib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from itertools import groupby
from os.path import normpath
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.training.data.arrays import EncodedImage
from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.files import did_you_mean, find_files, is_accessible_file, read_text, stamps
from unrolled.training.data.rows import Row, Rows, TableRows
from unrolled.training.data.sources import Source
from unrolled.training.data.tables import normalize_whitespace, parse_json

_PATHS = ("image", "file_name", "filename", "path")  # columns that contain an image or name its file
_KARPATHY = {"train": "train", "restval": "train", "val": "validation", "validation": "validation", "test": "test"}


class CaptionedImage(NamedTuple):
    """An image and its captions.

    Attributes:
        picture: the bytes of a file, or its path.
        captions: nonempty captions with normalized whitespace.
        place: path or row, for messages and pages.
    """

    picture: EncodedImage
    captions: tuple[str, ...]
    place: str


class ImageRows(Source[CaptionedImage]):
    """An image in each row of tables or of a data set, as bytes or as the path of its file, and its captions.

    A folder with images and a metadata.jsonl (an imagefolder of the library `datasets`) is such a table; files that it
    doesn't name are images without a caption. Rows with the same file are one image with several captions.

    Args:
        rows: the rows.
        image: the column of the image; None for image, file_name, filename or path.
        captions: pattern of the names of caption columns, each with a text or a list of texts.
        folder: folder of named files; None for the folder of their table.
    """

    def __init__(self, rows: Rows, image: str | None, captions: str, folder: str | None = None) -> None:
        self._rows, self._columns = rows, (image, captions)
        self._folder = None if folder is None else Path(folder).expanduser()

    def __str__(self) -> str:
        first = next(self._rows.read("train"), Row({}, ""))
        columns = caption_columns(first.values, self._columns[1])
        # Printed, since a column such as caption_id may match the pattern by mistake.
        return f"{self._rows} (captions: {', '.join(columns)})" if len(columns) > 1 else str(self._rows)

    @property
    def splits(self) -> tuple[str, ...]:
        return self._rows.splits

    def fingerprint(self) -> dict[str, Any]:
        about = {"columns": self._columns, "folder": str(self._folder), **self._rows.fingerprint()}
        return {**about, "named": [named_stamps(self.read(split)) for split in self.splits if self._names_files(split)]}

    def read(self, split: str) -> Iterator[CaptionedImage]:
        """See `Source.read`.

        Raises:
            DataError: a table that does not exist, cannot be read or lacks a column.
        """
        for file, rows in groupby(self._rows.read(split), lambda row: row.file):
            images = merge_captions(map(self._image, rows))
            yield from with_uncaptioned(images, file.parent) if file and self._is_of_folder(file) else images

    def _image(self, row: Row) -> CaptionedImage:
        beside = Path() if row.file is None else row.file.parent
        return captioned_image(row, *self._columns, self._folder or beside)

    def _names_files(self, split: str) -> bool:
        """Whether a table's first row contains the path of an image instead of its bytes."""
        firsts = (next(rows) for _, rows in groupby(self._rows.read(split), lambda row: row.file))
        return any(self._image(row).picture.content is None for row in firsts)

    def _is_of_folder(self, path: Path) -> bool:
        """Whether a table is the metadata file of all images in its folder."""
        if self._folder is not None or not path.name.startswith("metadata.") or not isinstance(self._rows, TableRows):
            return False
        tables = {each for split in self.splits for each in self._rows.paths(split) if each.parent == path.parent}
        return len(tables) == 1


class KarpathySource(Source[CaptionedImage]):
    """One JSON file with the images, sentences and splits of COCO, Flickr8k or Flickr30k (Karpathy & Fei-Fei 2015).

    Args:
        file: such as dataset_flickr8k.json; its "restval" images are for training.
        folder: folder of the images.
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
        named = [named_stamps(self.read(split)) for split in self.splits]
        return {"file": stamps(find_files(str(self._file))), "folder": str(self._folder), "named": named}

    def read(self, split: str) -> Iterator[CaptionedImage]:
        """See `Source.read`.

        Raises:
            DataError: the file does not have Karpathy's format.
        """
        for number, image in enumerate(self._listed()):
            if _split_of(image) != split:
                continue
            place = f"{self._file}, image {number}"
            if "filename" not in image or not isinstance(image.get("sentences"), list):
                raise DataError(f'{place}: no "filename" and list of "sentences"; is this one of Karpathy\'s files?')
            path = self._folder / image.get("filepath", "") / image["filename"]
            yield CaptionedImage(EncodedImage(None, str(path)), _texts(image["sentences"], place), str(path))

    def _listed(self) -> list[Mapping[str, Any]]:
        (path,) = find_files(str(self._file), suffixes=(".json",))
        found = parse_json("".join(read_text(path)), str(path))
        if not isinstance(found, dict) or not isinstance(found.get("images"), list):
            raise DataError(f'{path} has no list of "images"; is this one of Karpathy\'s files?')
        return found["images"]


def _split_of(image: Mapping[str, Any]) -> str:
    split = image.get("split", "train")
    if split not in _KARPATHY:
        raise DataError(f"split {split!r} of image {image.get('filename')} is one of {', '.join(_KARPATHY)}")
    return _KARPATHY[split]


def caption_columns(row: Mapping[Any, Any], pattern: str) -> list[Any]:
    """Returns the columns of a row whose names match a pattern."""
    return [name for name in row if fnmatch(str(name), pattern)]


def captioned_image(row: Row, image: str | None, captions: str, folder: Path) -> CaptionedImage:
    """Returns the image and the captions in a row.

    Raises:
        DataError: a column is missing or has another type.
    """
    cells, place = row.values, row.place
    there = ", ".join(map(str, cells)) or "none"
    found = [name for name in ([image] if image else _PATHS) if name in cells]
    if not found:
        wanted = f"column {image!r}{did_you_mean(image, cells)}" if image else f"column {', '.join(_PATHS)}"
        raise DataError(f"{place}: no {wanted}; there is {there}. Name it by data.image")
    columns = [name for name in caption_columns(cells, captions) if name != found[0]]
    if not columns:
        raise DataError(
            f"{place}: no column matches {captions!r}{did_you_mean(captions.strip('*'), cells)}; there is {there}. "
            "Name the columns by data.captions, a pattern such as caption_*"
        )
    texts = tuple(text for name in columns for text in _texts(cells[name], f"{place}, column {name!r}"))
    return CaptionedImage(_picture(cells[found[0]], folder, f"{place}, column {found[0]!r}"), texts, place)


def merge_captions(images: Iterator[CaptionedImage]) -> Iterator[CaptionedImage]:
    """Merges the captions of rows with the same file. Rows that contain their image are not merged."""
    named: dict[str, CaptionedImage] = {}
    for one in images:
        path = one.picture.path
        if one.picture.content is not None:
            yield one
        elif path in named:
            named[path] = named[path]._replace(captions=named[path].captions + one.captions)
        else:
            named[path] = one
    yield from named.values()


def with_uncaptioned(images: Iterator[CaptionedImage], folder: Path) -> Iterator[CaptionedImage]:
    """Yields the images, and then the other images in the folder, without captions."""
    from PIL import Image

    named: set[str] = set()
    for one in images:
        named.add(normpath(one.picture.path))
        yield one
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in readable and str(path) not in named:
            yield CaptionedImage(EncodedImage(None, str(path)), (), str(path))


def named_stamps(images: Iterator[CaptionedImage]) -> str:
    """Returns a hash that differs when one of the named image files does."""
    paths = (Path(one.picture.path) for one in images if one.picture.content is None)
    return hashlib.sha256(repr(stamps(path for path in paths if is_accessible_file(path))).encode()).hexdigest()


def _picture(value: Any, folder: Path, place: str) -> EncodedImage:
    if isinstance(value, Mapping):  # how `datasets` and its Parquet files hold an image
        content, path = value.get("bytes"), value.get("path")
        if content is not None or path is not None:
            return (
                EncodedImage(content, path or "")
                if content is not None
                else EncodedImage(None, str(folder / str(path)))
            )
    elif isinstance(value, bytes):
        return EncodedImage(value, "")
    elif isinstance(value, str) and value:
        return EncodedImage(None, str(folder / value))
    raise DataError(f"{place} contains no image: expected a path, the bytes of a file, or both as in `datasets`")


def _texts(value: Any, place: str) -> tuple[str, ...]:
    """Returns the captions in a cell: a text, a list of texts, or of objects with a "raw" text (Karpathy's format)."""
    listed = value if isinstance(value, (list, tuple)) else [value]
    texts: list[str] = []
    for item in listed:
        text = item.get("raw", "") if isinstance(item, Mapping) else item
        if not isinstance(text, str | None):
            raise DataError(f"{place} contains {text!r:.80}, not a caption")
        if text and (plain := normalize_whitespace(text)):
            texts.append(plain)
    return tuple(texts)
