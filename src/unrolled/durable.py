"""Atomic and durable writes: a file is written completely or not at all, synced, and verified by a digest when read.

The digest (SHA-256 of the content) is appended to the file. In a zip file, which is what torch writes, it becomes the
archive's comment, and loaders of shared libraries ignore trailing bytes, so other programs can still read these files.
"""

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

_LABEL = b"unrolled sha256 "
_TRAILER = len(_LABEL) + 64  # bytes
_ZIP_START, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
_ZIP_END_SIZE = 22  # bytes, without a comment
_FOLDER_DIGESTS = "digests.json"
_SPARE = 1 << 20  # bytes that must remain free


class DamagedFileError(ValueError):
    """The content of a file differs from what was written."""


class NoSpaceError(OSError):
    """The disk has too little free space for a file. Nothing was written."""


def write(path: Path, fill: Callable[[BinaryIO], object], *, size: int = 0) -> None:
    """Replaces a file atomically: the old file remains until the new one is on the disk and verified.

    The content is written to a temporary file in the same folder, followed by its digest. The file is synced, read
    back, and renamed. If the process is killed at any moment, the path holds either the old file or the new one. Two
    processes must not write the same path at the same time.

    Args:
        path: the file to write; its folder is created if needed.
        fill: writes the content to a binary file.
        size: expected size in bytes, as far as known; this much space must be free.

    Raises:
        NoSpaceError: too little free space.
        OSError: the file can't be written.
        DamagedFileError: reading back gives other content than was written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_space(path.parent, size)
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("w+b") as file:
            fill(file)
            _append_digest(file)
            file.flush()
            os.fsync(file.fileno())
            _forget_cached(file)
        check(partial, required=True)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Replaces a file atomically by what a function writes, without a digest: for files that other programs read.

    Args:
        path: the file to write; its folder is created if needed.
        write: writes the content to a path, a temporary file in the same folder.

    Raises:
        OSError: the file can't be written; an existing one is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        write(partial)
        partial.replace(path)
    except OSError as error:
        # Python's message names the file if it cannot be opened, but not if the disk is full.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def replace_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Replaces files of a folder, without digests. All are written and synced before the first one is renamed.

    If a file can't be written, none is replaced.

    Args:
        folder: is created if needed.
        files: name → content; a name may have folders before it.

    Returns:
        The paths of the files.

    Raises:
        NoSpaceError: too little free space.
        OSError: a file can't be written; existing ones are unchanged.
    """
    made = next((path for path in (*reversed(folder.parents), folder) if not path.exists()), None)  # the first new one
    folder.mkdir(parents=True, exist_ok=True)
    partials: dict[Path, Path] = {}
    try:
        _check_space(folder, sum(map(len, files.values())))
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.part")
            with partial.open("wb") as file:
                partials[path] = partial
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise
    for path, partial in partials.items():
        partial.replace(path)
    for changed in {path.parent for path in partials}:
        _sync_folder(changed)
    return list(partials)


def check(path: Path, *, required: bool = False) -> None:
    """Verifies the digest of a file.

    Args:
        path: the file to verify.
        required: whether a file without a digest is an error. By default such a file, written by another program,
            passes.

    Raises:
        DamagedFileError: the content doesn't match the digest, or a required digest is missing.
        OSError: the file can't be read.
    """
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END) - _TRAILER
        file.seek(max(0, length))
        trailer = file.read()
        if length < 0 or not trailer.startswith(_LABEL):
            if required:
                raise DamagedFileError(f"{path}: its digest is missing; the file is not whole")
            return
        if _digest(file, length) != trailer.removeprefix(_LABEL):
            raise DamagedFileError(f"{path}: the file is damaged: its content has another digest than when written")


def finish_folder(folder: Path) -> None:
    """Writes the digests of all files of a folder into it and syncs them. Call it before `move_folder`.

    Raises:
        OSError: a file can't be written.
    """
    digests = {str(path.relative_to(folder)): _sync_and_digest(path) for path in _files(folder)}
    with (folder / _FOLDER_DIGESTS).open("w", encoding="utf-8") as file:
        json.dump(digests, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    for inner in (path for path in folder.rglob("*") if path.is_dir()):
        _sync_folder(inner)
    _sync_folder(folder)


def move_folder(partial: Path, folder: Path) -> None:
    """Renames a finished folder and syncs its parent, so that the new name survives a power failure."""
    partial.replace(folder)
    _sync_folder(folder.parent)


def check_folder(folder: Path) -> str:
    """Verifies the files of a folder and returns a digest of the whole content.

    Raises:
        DamagedFileError: a file is missing, damaged, or has no digest.
        OSError: a file can't be read.
    """
    try:
        digests = json.loads((folder / _FOLDER_DIGESTS).read_text(encoding="utf-8"))
        expected = {str(name): str(digest) for name, digest in digests.items()}
    except (FileNotFoundError, ValueError, AttributeError):
        raise DamagedFileError(f"{folder}: its {_FOLDER_DIGESTS} is missing or damaged") from None
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            raise DamagedFileError(f"{path}: the file is missing")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise DamagedFileError(f"{path}: the file is damaged: its content has another digest than when written")
    return hashlib.sha256(json.dumps(expected, sort_keys=True).encode()).hexdigest()


def digest_in_folder(path: Path) -> str:
    """Returns the digest of a file: the one that `finish_folder` stored, or else computed from the content.

    Raises:
        OSError: the file can't be read.
    """
    digests = path.parent / _FOLDER_DIGESTS
    if digests.is_file():
        return str(json.loads(digests.read_text(encoding="utf-8"))[path.name])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _append_digest(file: BinaryIO) -> None:
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    is_zip = file.read(4) == _ZIP_START
    file.seek(max(0, length - _ZIP_END_SIZE))
    end = file.read()
    if is_zip and end[:4] == _ZIP_END and end[-2:] == b"\0\0":  # an archive without a comment
        file.seek(length - 2)
        file.write(struct.pack("<H", _TRAILER))
    digest = _digest(file, length)
    file.seek(length)
    file.write(_LABEL + digest)


def _digest(file: BinaryIO, length: int) -> bytes:
    """Returns the hexadecimal digest of the first `length` bytes of a file."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0:
        block = file.read(min(length, 1 << 20))
        if not block:
            break
        digest.update(block)
        length -= len(block)
    return digest.hexdigest().encode()


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + _SPARE:
        raise NoSpaceError(
            f"{folder}: {_megabytes(size + _SPARE)} are needed and {_megabytes(free)} are free; nothing was written. "
            "Make room, or write to another disk"
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _forget_cached(file: BinaryIO) -> None:
    """Drops the file from the page cache, where the system supports it, so that the next read comes from the disk."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _FOLDER_DIGESTS)


def _sync_and_digest(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Syncs the entries of a folder, on systems that can open a folder."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
