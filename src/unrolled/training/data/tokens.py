"""Encoded text on disk: written in chunks, and read through a memory map."""

import hashlib
import json
import os
from array import array
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unrolled.durable import digest_in_folder
from unrolled.processing.text.base import Tokenizer

_TYPES = ("uint8", "uint16", "uint32")
_FORMAT = 1


class Tokens:
    """The ids of a text of one or more documents, on disk.

    Args:
        path: a file of `write_tokens`.

    Attributes:
        documents: (documents + 1) int64, the beginning of each document, and the end of the last.
        unknown: number of ids that are the tokenizer's unknown id.

    Raises:
        FileNotFoundError: the file does not exist or is incomplete.
        ValueError: the files do not belong together.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        about = json.loads(_sidecar(self.path, "json").read_text())
        expected = about["size"] * np.dtype(about["dtype"]).itemsize
        if about["format"] != _FORMAT or self.path.stat().st_size != expected:
            raise ValueError(f"{self.path} is not the file that its .json describes; remove both and encode again")
        self.unknown: int = about["unknown"]
        self.tokenizer_hash: str = about["tokenizer"]
        self.documents: NDArray[np.int64] = np.load(_sidecar(self.path, "documents.npy"))
        # An empty file cannot be mapped.
        self._ids: NDArray[Any] = (
            np.memmap(self.path, dtype=about["dtype"], mode="r") if about["size"] else np.empty(0, dtype=about["dtype"])
        )

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(documents,) number of ids of each document."""
        return np.diff(self.documents)

    def digest(self) -> str:
        """Returns a hash of the ids and the documents' boundaries."""
        return "".join(digest_in_folder(path) for path in (self.path, _sidecar(self.path, "documents.npy")))

    def read(self, start: int, stop: int) -> Tensor:
        """Returns (stop − start) int64, a copy of the ids of a range."""
        return torch.as_tensor(self._ids[start:stop].astype(np.int64))

    def gather(self, positions: NDArray[np.int64]) -> Tensor:
        """Returns the int64 ids at these positions, in their shape."""
        return torch.as_tensor(self._ids[positions].astype(np.int64))


def write_tokens(path: str | os.PathLike[str], tokenizer: Tokenizer, texts: Iterable[str | Iterable[str]]) -> Tokens:
    """Encodes documents to disk, in chunks.

    The files are written to a hidden temporary folder and moved into place when all are complete, the description last:
    a text without a description is incomplete.

    Args:
        path: the file of ids; its offsets and description are written beside it.
        tokenizer: converts text to ids.
        texts: one item per document: its text, or the chunks of its text.
    """
    path = Path(path)
    dtype = np.dtype(next(name for name in _TYPES if tokenizer.size <= np.iinfo(name).max + 1))
    ends = array("q", [0])  # a tenth of a list's memory
    unknown = 0
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        partial = Path(folder) / path.name
        with partial.open("wb") as file:
            for text in texts:
                size = 0
                for ids in tokenizer.encode_pieces([text] if isinstance(text, str) else text):
                    encoded = np.asarray(ids, dtype=dtype)
                    unknown += 0 if tokenizer.unknown is None else int(np.count_nonzero(encoded == tokenizer.unknown))
                    size += encoded.size
                    file.write(encoded.tobytes())
                ends.append(ends[-1] + size)
            file.flush()
            os.fsync(file.fileno())
        np.save(_sidecar(partial, "documents.npy"), np.asarray(ends, dtype=np.int64))
        about = {
            "format": _FORMAT,
            "size": ends[-1],
            "dtype": dtype.name,
            "unknown": unknown,
            "tokenizer": tokenizer_hash(tokenizer),
        }
        _sidecar(partial, "json").write_text(json.dumps(about))
        _sidecar(path, "json").unlink(missing_ok=True)  # of an older text, which is incomplete from now on
        partial.replace(path)
        for name in ("documents.npy", "json"):
            _sidecar(partial, name).replace(_sidecar(path, name))
    return Tokens(path)


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """Returns a hash of the tokenizer's description."""
    return hashlib.sha256(json.dumps(tokenizer.to_dict(), sort_keys=True).encode()).hexdigest()


def _sidecar(path: Path, name: str) -> Path:
    return path.with_name(f"{path.name}.{name}")
