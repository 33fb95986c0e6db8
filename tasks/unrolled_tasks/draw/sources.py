"""Images as bytes: scikit-learn's digits, IDX files, image files, and tables or data sets that contain or name them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrolled.processing.images import read_pixels
from unrolled.training.data.base import DataError
from unrolled.training.data.files import find_files, suffix_of
from unrolled.training.data.idx import is_idx, read_idx
from unrolled.training.data.options import Patterns, SourceOptions
from unrolled.training.data.rows import Row, file_rows, rows_of
from unrolled.training.data.tables import TABLES

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
_IDX = (".idx3-ubyte", ".idx")  # of files in a folder; others are known by their first bytes


def digits() -> list[Tensor]:
    """Returns scikit-learn's 1,797 handwritten digits of 8 × 8 pixels (Alpaydin & Kaynak 1998)."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise DataError("the digits come from scikit-learn: pip install 'unrolled[train]'") from None
    found: Any = load_digits()
    return list((torch.from_numpy(found.images) / 16 * 255).round().to(torch.uint8).unsqueeze(1))


def images_of(origin: SourceOptions, column: str, *, color: bool, max_pixels: int) -> dict[str, Iterator[Tensor]]:
    """Returns the images (channels, height, width), uint8, of each split that has its own.

    Args:
        origin: files or a data set.
        column: column of the image, or of its path, in tables and data sets.
        color: whether images have three channels instead of one.
        max_pixels: maximum number of pixels of an image; a larger one is refused before it is decoded.

    Raises:
        DataError: files that do not exist; while images are read, one that cannot be read.
    """
    options: dict[str, Any] = {"color": color, "max_pixels": max_pixels}
    if origin.dataset is not None:
        rows = rows_of(origin, [column])
        return {split: (_row_image(row, column, options) for row in rows.read(split)) for split in rows.splits}
    return {split: _file_images(patterns, split, column, options) for split, patterns in origin.patterns.items()}


def _file_images(patterns: Patterns, split: str, column: str, options: Mapping[str, Any]) -> Iterator[Tensor]:
    for path in find_files(patterns, f"{split} files", suffixes=(*IMAGES, *TABLES, *_IDX)):
        if suffix_of(path) in TABLES:
            yield from (_row_image(row, column, options) for row in file_rows(path))
        elif path.suffix.lower() in IMAGES:
            yield _opened(path, str(path), options)
        elif is_idx(path):
            yield from _idx_images(path, color=options["color"])
        else:
            kinds = f"images ({', '.join(IMAGES)}), tables ({', '.join(TABLES)}) or IDX files, as those of MNIST"
            raise DataError(f"{path}: expected {kinds}")


def _idx_images(path: Path, *, color: bool) -> Iterator[Tensor]:
    found = read_idx(path)
    if found.ndim != 3:
        raise DataError(
            f"{path} contains an array of shape {tuple(found.shape)}, not images (number, height, width); labels have "
            "a file of their own, which is not needed"
        )
    yield from found.unsqueeze(1).expand(-1, 3 if color else 1, -1, -1)


def _row_image(row: Row, column: str, options: Mapping[str, Any]) -> Tensor:
    cell = row.column(column, "data.image")
    if isinstance(cell, Mapping):  # of a data set
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str) and cell:
        cell = (Path() if row.file is None else row.file.parent) / Path(cell).expanduser()
    if not isinstance(cell, Path | bytes):
        raise DataError(f"{row.place}: column {column!r} contains {cell!r:.60}, not an image or the path of one")
    return _opened(cell, f"{row.place}: {cell}" if isinstance(cell, Path) else row.place, options)


def _opened(source: Path | bytes, name: str, options: Mapping[str, Any]) -> Tensor:
    try:
        return read_pixels(source, name, **options)
    except ValueError as error:
        raise DataError(str(error)) from None
