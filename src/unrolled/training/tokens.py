"""Encoded text on disk: written once, in pieces, and read in ranges through a memory map, however long it is."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unrolled.codecs import Codec

_TYPES = ("uint8", "uint16", "uint32")
_FORMAT = 1


class Tokens:
    """The ids of a text of one or more documents, on disk.

    Args:
        path: what `write_tokens` wrote.

    Attributes:
        documents: (documents + 1) int64, where each document begins, and the end of the last.
        unknown: how many ids stand for something the codec lacks.

    Raises:
        FileNotFoundError: nothing was written there, or not to the end.
        ValueError: the files do not belong together.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        about = json.loads(_sidecar(self.path, "json").read_text())
        expected = about["size"] * np.dtype(about["dtype"]).itemsize
        if about["format"] != _FORMAT or self.path.stat().st_size != expected:
            raise ValueError(f"{self.path} is not the file that its .json describes; remove both and encode again")
        self.unknown: int = about["unknown"]
        self.codec_hash: str = about["codec"]
        self.documents: NDArray[np.int64] = np.load(_sidecar(self.path, "documents.npy"))
        # An empty file cannot be mapped.
        self._ids: NDArray[Any] = (
            np.memmap(self.path, dtype=about["dtype"], mode="r") if about["size"] else np.empty(0, dtype=about["dtype"])
        )

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(documents,) ids in each document."""
        return np.diff(self.documents)

    def read(self, start: int, stop: int) -> Tensor:
        """(stop − start) int64: the ids of a range, copied from the disk."""
        return torch.as_tensor(self._ids[start:stop].astype(np.int64))

    def gather(self, positions: NDArray[np.int64]) -> Tensor:
        """Int64 ids at these positions, in their shape."""
        return torch.as_tensor(self._ids[positions].astype(np.int64))


def write_tokens(path: str | os.PathLike[str], codec: Codec, texts: Iterable[str | Iterable[str]]) -> Tokens:
    """Encodes documents to disk, a piece at a time.

    Each file appears under its name only when it is whole, the description last: a text without one was never finished.

    Args:
        path: the file of ids; its offsets and description are put beside it.
        codec: turns text into ids.
        texts: one item per document: its text, or the pieces of its text.
    """
    path = Path(path)
    dtype = np.dtype(next(name for name in _TYPES if codec.size <= np.iinfo(name).max + 1))
    ends = [0]
    unknown = 0
    with _Whole(path) as file:
        for text in texts:
            size = 0
            for ids in codec.encode_pieces([text] if isinstance(text, str) else text):
                array = np.asarray(ids, dtype=dtype)
                unknown += 0 if codec.unknown is None else int(np.count_nonzero(array == codec.unknown))
                size += array.size
                file.write(array.tobytes())
            ends.append(ends[-1] + size)
    with _Whole(_sidecar(path, "documents.npy")) as file:
        np.save(file, np.asarray(ends, dtype=np.int64))
    about = {"format": _FORMAT, "size": ends[-1], "dtype": dtype.name, "unknown": unknown, "codec": codec_hash(codec)}
    with _Whole(_sidecar(path, "json")) as file:
        file.write(json.dumps(about).encode())
    return Tokens(path)


def codec_hash(codec: Codec) -> str:
    """Equal for codecs that encode every text alike."""
    return hashlib.sha256(json.dumps(codec.to_dict(), sort_keys=True).encode()).hexdigest()


def _sidecar(path: Path, name: str) -> Path:
    return path.with_name(f"{path.name}.{name}")


class _Whole:
    """A file that takes its name when it was written to the end, and is removed otherwise."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")

    def __enter__(self) -> Any:
        self._file = self._partial.open("wb")
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink()
