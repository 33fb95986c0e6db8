"""Reading IDX files, the format of the MNIST database: a header with type and sizes, and the numbers."""

import math
from pathlib import Path

import torch
from torch import Tensor

from unrolled.training.data.base import DataError
from unrolled.training.data.files import read_bytes

_BYTES = 8  # code of unsigned bytes, the only type of the databases of images


def is_idx(path: Path) -> bool:
    """Whether a file, compressed or not, begins as an IDX file does: two zeros, a type, a number of axes."""
    head = next(read_bytes(path))[:4]
    return len(head) == 4 and head[:2] == b"\0\0" and 8 <= head[2] <= 14 and head[3] > 0


def read_idx(path: Path) -> Tensor:
    """Returns the bytes of an IDX file, uint8, in the shape that the file gives, such as (60000, 28, 28).

    Raises:
        DataError: a file that cannot be read, is no IDX file of bytes, or is shorter or longer than its header says.
    """
    content = b"".join(read_bytes(path))
    axes = content[3] if len(content) > 3 else 0
    begin = 4 + 4 * axes
    if content[:2] != b"\0\0" or not axes or len(content) < begin:
        raise DataError(f"{path} is not an IDX file: it begins with {content[:4]!r}")
    if content[2] != _BYTES:
        raise DataError(f"{path} has numbers of type 0x{content[2]:02x}; images are bytes, type 0x08")
    shape = [int.from_bytes(content[place : place + 4], "big") for place in range(4, begin, 4)]
    if len(content) - begin != math.prod(shape):
        raise DataError(
            f"{path} has {len(content) - begin:,} bytes after its header, which gives {' × '.join(map(str, shape))} = "
            f"{math.prod(shape):,}; the file is cut off or damaged"
        )
    if not math.prod(shape):
        return torch.empty(shape, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content[begin:]), dtype=torch.uint8).view(shape)
