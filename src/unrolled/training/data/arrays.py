"""Arrays and encoded images in an Arrow file: written one after another, read at random through a memory map."""

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from unrolled.training.data.buckets import Ints

_ROWS = 32  # rows of a record batch


def write_arrays(path: Path, arrays: Iterable[Tensor]) -> None:
    """Writes arrays of equal shape as 16-bit floats, without holding all of them in memory."""
    arrays = iter(arrays)
    first = next(arrays, None)
    shape = [0] if first is None else list(first.shape)
    kind = pa.list_(pa.float16(), int(np.prod(shape)))
    schema = pa.schema([pa.field("array", kind)], metadata={"shape": ",".join(map(str, shape))})
    rest = arrays if first is None else chain([first], arrays)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        while block := list(islice(rest, _ROWS)):
            flat = torch.stack(block).half().flatten().numpy()
            writer.write_batch(pa.record_batch([pa.FixedSizeListArray.from_arrays(flat, type=kind)], schema=schema))


class Arrays:
    """Reads a file of `write_arrays` through a memory map."""

    def __init__(self, path: Path) -> None:
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self.shape = tuple(int(size) for size in self._reader.schema.metadata[b"shape"].split(b","))
        self._blocks: dict[int, NDArray[Any]] = {}

    def read(self, rows: Ints) -> Tensor:
        """Returns the arrays of these rows, (rows, …) float32."""
        found = [self._block(row // _ROWS)[row % _ROWS] for row in rows.tolist()]
        return torch.from_numpy(np.stack(found)).float() if found else torch.empty(0, *self.shape)

    def _block(self, number: int) -> NDArray[Any]:
        if number not in self._blocks:
            column: Any = self._reader.get_batch(number).column(0)
            self._blocks[number] = column.flatten().to_numpy(zero_copy_only=True).reshape(-1, *self.shape)
        return self._blocks[number]


def write_sequences(path: Path, sequences: Iterable[Tensor]) -> None:
    """Writes tensors of equal dtype and any shape, without holding all of them in memory."""
    sequences = iter(sequences)
    first = next(sequences, None)
    values = pa.large_list(pa.float32() if first is None else pa.from_numpy_dtype(first.numpy().dtype))
    schema = pa.schema([pa.field("values", values), pa.field("shape", pa.list_(pa.int64()))])
    rest = sequences if first is None else chain([first], sequences)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        while block := list(islice(rest, _ROWS)):
            ends = np.cumsum([0, *(one.numel() for one in block)]).astype(np.int64)
            flat = torch.cat([one.flatten() for one in block]).numpy()
            shapes = pa.array([list(one.shape) for one in block], schema.field("shape").type)
            column = pa.LargeListArray.from_arrays(ends, flat, type=values)
            writer.write_batch(pa.record_batch([column, shapes], schema=schema))


class Sequences(Sequence[Tensor]):
    """Reads a file of `write_sequences` through a memory map."""

    def __init__(self, path: Path) -> None:
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        count = self._reader.num_record_batches
        last = self._reader.get_batch(count - 1).num_rows if count else 0
        self._length = max(0, count - 1) * _ROWS + last

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._length))]
        if not 0 <= index < self._length:
            raise IndexError(f"sequence {index} of {self._length}")
        block: Any = self._reader.get_batch(index // _ROWS)
        values, shape = (block.column(number)[index % _ROWS] for number in (0, 1))
        # A copy, since the memory map is read-only.
        return torch.from_numpy(values.values.to_numpy(zero_copy_only=True).copy()).view(shape.as_py())


class EncodedImage(NamedTuple):
    """An encoded image: the bytes of its file, or the path."""

    content: bytes | None
    path: str

    @property
    def source(self) -> bytes | str:
        """The argument of `unrolled.processing.images.read_image`."""
        return self.path if self.content is None else self.content


_PICTURES = pa.schema([("content", pa.binary()), ("path", pa.string())])


def write_encoded_images(path: Path, pictures: Iterable[EncodedImage]) -> None:
    """Writes encoded images, without holding all of them in memory."""
    pictures = iter(pictures)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, _PICTURES) as writer:
        while block := list(islice(pictures, _ROWS)):
            columns = [pa.array([one.content for one in block], pa.binary()), pa.array([one.path for one in block])]
            writer.write_batch(pa.record_batch(columns, schema=_PICTURES))


class EncodedImages(Sequence[EncodedImage]):
    """Reads a file of `write_encoded_images` through a memory map."""

    def __init__(self, path: Path) -> None:
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        sizes = [self._reader.get_batch(number).num_rows for number in range(self._reader.num_record_batches)]
        self._length = sum(sizes)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(f"image {index} of {self._length}")
        block = self._reader.get_batch(index // _ROWS)
        content, path = (block.column(number)[index % _ROWS].as_py() for number in (0, 1))
        return EncodedImage(content, path)
