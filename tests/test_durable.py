"""Files that must not be lost: whole whenever the process is killed, and checked when they are read."""

import io
import os
import random
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from unrolled import durable
from unrolled.checkpoint import load_tensors, save_tensors
from unrolled.descriptions import CheckpointError

KILLED = Path(__file__).parent / "killed_writers.py"
CONTENT = {"state_dict": {f"layer.{n}": torch.arange(50.0) * n for n in range(4)}, "step": 7, "names": ["a", "b"]}


def same(one: Any, other: Any) -> bool:
    weights = [(one["state_dict"][name], other["state_dict"][name]) for name in CONTENT["state_dict"]]
    return all(torch.equal(*pair) for pair in weights) and (one["step"], one["names"]) == (
        other["step"],
        other["names"],
    )


def test_what_is_written_is_read_by_us_by_torch_and_as_a_zip_file(tmp_path: Path) -> None:
    save_tensors(CONTENT, tmp_path / "a.ckpt")

    assert same(load_tensors(tmp_path / "a.ckpt"), CONTENT)
    assert same(torch.load(tmp_path / "a.ckpt", weights_only=True), CONTENT)
    assert same(torch.load(tmp_path / "a.ckpt", weights_only=True, mmap=True), CONTENT)
    assert zipfile.ZipFile(tmp_path / "a.ckpt").testzip() is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_no_flipped_bit_is_loaded_as_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_tensors(CONTENT, path)
    whole, draw = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(300):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            assert same(load_tensors(path), CONTENT)
        except CheckpointError:
            refused += 1
    assert refused > 250  # the rest hit the label in front of the digest, and the content is what it was


def test_no_file_that_is_cut_short_is_loaded_as_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_tensors(CONTENT, path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 80, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load_tensors(path)
    path.write_bytes(whole[:-1])  # the digest alone is not whole
    assert same(load_tensors(path), CONTENT)


def test_another_programs_file_is_read_without_a_digest(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "a.ckpt")

    assert same(load_tensors(tmp_path / "a.ckpt"), CONTENT)
    with pytest.raises(durable.DamagedFileError, match="digest is missing"):
        durable.check(tmp_path / "a.ckpt", required=True)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04", b"\x7fELF" + bytes(3000), os.urandom(1 << 21)])
def test_any_content_comes_back(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    durable.write(path, lambda file: file.write(content))

    durable.check(path, required=True)
    assert path.read_bytes().startswith(content)
    damaged = bytearray(path.read_bytes())
    damaged[len(content) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(durable.DamagedFileError):
        durable.check(path, required=True)


def test_files_are_replaced_together_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    first = durable.replace_files(folder, {"a.bin": b"1", "inner/b.bin": b"2"})
    assert [path.read_bytes() for path in first] == [b"1", b"2"]

    (folder / ".c.bin.part").mkdir()  # where the third file cannot be written
    with pytest.raises(OSError, match="directory"):
        durable.replace_files(folder, {"a.bin": b"other", "inner/b.bin": b"other", "c.bin": b"3"})
    assert [path.read_bytes() for path in first] == [b"1", b"2"]
    assert sorted(path.name for path in folder.rglob("*")) == [".c.bin.part", "a.bin", "b.bin", "inner"]


def test_a_folder_of_files_that_cannot_be_written_is_not_left(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        durable.replace_files(tmp_path / "new" / "folder", {"a.bin": b"1", "b" * 300: b"2"})
    assert not list(tmp_path.iterdir())


def test_an_error_while_writing_leaves_the_file_before(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    save_tensors(CONTENT, tmp_path / "a.ckpt")
    with pytest.raises(KeyboardInterrupt):
        durable.write(tmp_path / "a.ckpt", fail)

    assert same(load_tensors(tmp_path / "a.ckpt"), CONTENT)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_disk_that_is_too_full_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tensors(CONTENT, tmp_path / "a.ckpt")
    usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    save_tensors(CONTENT, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"5\.\d MB are needed and 3\.0 MB are free"):
        save_tensors({"big": torch.zeros(1_000_000)}, tmp_path / "a.ckpt")
    assert same(load_tensors(tmp_path / "a.ckpt"), CONTENT)


def test_a_write_that_the_system_refuses_leaves_the_file_before(tmp_path: Path) -> None:
    save_tensors(CONTENT, tmp_path / "a.ckpt")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # bytes of a file
    try:
        with pytest.raises(CheckpointError, match="an existing file is unchanged"):
            save_tensors({"big": torch.zeros(100_000)}, tmp_path / "a.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert same(load_tensors(tmp_path / "a.ckpt"), CONTENT)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
@pytest.mark.parametrize("in_memory", [True, False])
def test_fifty_kills_while_writing_leave_a_whole_file(tmp_path: Path, in_memory: bool) -> None:
    """On each of two file systems with $TMPDIR on the other; the writer counts what is on the disk."""
    shared = Path("/dev/shm") / f"unrolled-{os.getpid()}"
    shared.mkdir()
    folder, temporary = (shared, tmp_path) if in_memory else (tmp_path, shared)
    try:
        command = [sys.executable, str(KILLED), str(folder), "25"]
        done = subprocess.run(
            command, env={**os.environ, "TMPDIR": str(temporary)}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert not list(temporary.iterdir())
        assert {path.name for path in folder.iterdir()} <= {"last.ckpt", ".last.ckpt.part"}
    finally:
        shutil.rmtree(shared)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(place)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_disk_of_three_megabytes_keeps_what_is_on_it(
    disk: Path, monkeypatch: pytest.MonkeyPatch, foreseen: bool
) -> None:
    if not foreseen:  # another program takes the space while the file is written
        monkeypatch.setattr(durable, "_check_space", lambda *_: None)
    save_tensors(CONTENT, disk / "a.ckpt")
    with pytest.raises(CheckpointError, match="is unchanged"):
        save_tensors({"big": torch.zeros(1_000_000)}, disk / "b.ckpt")
    assert [path.name for path in disk.iterdir()] == ["a.ckpt"]
    (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))
    with pytest.raises(CheckpointError, match="is unchanged"):
        save_tensors({**CONTENT, "more": torch.zeros(50_000)}, disk / "a.ckpt")
    assert same(load_tensors(disk / "a.ckpt"), CONTENT)
    (disk / "other").unlink()
    save_tensors({"step": 8}, disk / "a.ckpt")
    assert load_tensors(disk / "a.ckpt") == {"step": 8}


def test_a_folder_that_is_only_read_keeps_what_is_in_it(disk: Path) -> None:
    save_tensors(CONTENT, disk / "a.ckpt")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(CheckpointError, match=r"a\.ckpt could not be written; .*Read-only file system"):
        save_tensors({"step": 8}, disk / "a.ckpt")
    assert same(load_tensors(disk / "a.ckpt"), CONTENT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_a_folder_without_the_permission_keeps_what_is_in_it(tmp_path: Path) -> None:
    save_tensors(CONTENT, tmp_path / "a.ckpt")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="could not be written"):
            save_tensors({"step": 8}, tmp_path / "a.ckpt")
        assert same(load_tensors(tmp_path / "a.ckpt"), CONTENT)
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_knows_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    (folder / "inner").mkdir(parents=True)
    (folder / "a").write_text("a")
    (folder / "inner" / "b").write_text("b")
    durable.finish_folder(folder)

    found = durable.check_folder(folder)
    assert durable.digest_in_folder(folder / "a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    (folder / "inner" / "b").write_text("c")
    with pytest.raises(durable.DamagedFileError, match="inner/b"):
        durable.check_folder(folder)
    durable.finish_folder(folder)
    assert durable.check_folder(folder) != found


def test_torch_writes_what_a_comment_can_be_added_to() -> None:
    """The digest of a checkpoint is a zip comment, so torch's archives must end without one."""
    buffer = io.BytesIO()
    torch.save(CONTENT, buffer)
    assert buffer.getvalue()[-22:-18] == b"PK\x05\x06"
    assert buffer.getvalue()[-2:] == b"\0\0"
