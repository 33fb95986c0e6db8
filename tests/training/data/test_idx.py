"""IDX files: written by hand as the format says, read back, and what is wrong with them."""

import gzip
import struct
from pathlib import Path

import pytest
import torch

from unrolled.training.data.base import DataError
from unrolled.training.data.idx import is_idx, read_idx


def header(*shape: int, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape)


@pytest.mark.parametrize("shape", [(3, 2, 4), (5,), (2, 1, 2, 3), (0, 28, 28)])
@pytest.mark.parametrize("compressed", [False, True])
def test_bytes_come_back_in_their_shape(shape: tuple[int, ...], compressed: bool, tmp_path: Path) -> None:
    count = torch.Size(shape).numel()
    path = tmp_path / ("images-idx3-ubyte.gz" if compressed else "images-idx3-ubyte")
    content = header(*shape) + bytes(range(count))
    path.write_bytes(gzip.compress(content) if compressed else content)

    assert is_idx(path)
    assert torch.equal(read_idx(path), torch.arange(count, dtype=torch.uint8).view(shape))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(3, 2) + bytes(5), r"5 bytes after its header, which gives 3 × 2 = 6; the file is cut off or damaged"),
        (header(3, 2) + bytes(7), r"7 bytes after its header"),
        (header(3, 2, kind=13) + bytes(24), r"numbers of type 0x0d; images are bytes, type 0x08"),
        (header(3, 2)[:9], r"not an IDX file"),
        (b"\x89PNG", r"not an IDX file: it begins with b'\\x89PNG'"),
        (b"", r"not an IDX file"),
    ],
)
def test_other_and_damaged_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)

    assert is_idx(tmp_path / "x") == content.startswith(b"\0\0")
    with pytest.raises(DataError, match=f"x (has|is) .*{message}"):
        read_idx(tmp_path / "x")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(header(100, 10) + bytes(1000))
    (tmp_path / "x.gz").write_bytes(packed[:-12])

    with pytest.raises(DataError, match=r"x\.gz cannot be read"):
        read_idx(tmp_path / "x.gz")
