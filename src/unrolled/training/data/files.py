"""Finding files by path, folder or pattern, and reading text in chunks, also from compressed files."""

import bz2
import codecs
import glob
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from unrolled.training.data.base import DataError

_PIECE = 1 << 20  # bytes read at a time
_DEEP = re.compile(r"(?<![^/])\*\*(?:/+\*\*(?![^/]))*(?:/+|$)")  # one or several path components `**`
_OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}  # to read bytes


def find_files(
    patterns: str | Path | Sequence[str | Path], what: str = "files", *, suffixes: Sequence[str] = (".txt",)
) -> list[Path]:
    """Returns files in a fixed order, without duplicates.

    Args:
        patterns: paths, folders (searched recursively for these suffixes, without following links to folders) or glob
            patterns, one or several. `**` visits each folder once, even if several links lead to it.
        what: name of the files in messages.
        suffixes: suffixes of the files in a folder, compressed or not.

    Raises:
        DataError: a path that does not exist or cannot be read, a pattern or folder without a match, or no pattern.
    """
    patterns = [patterns] if isinstance(patterns, str | Path) else list(patterns)
    if not patterns:
        raise DataError(f"no {what}: the list is empty")
    found: dict[Path, None] = {}
    for pattern in patterns:
        try:
            found |= dict.fromkeys(path.resolve() for path in _matches(str(pattern), suffixes))
        except (OSError, RuntimeError) as error:  # RuntimeError: the home folder of an unknown user
            raise DataError(f"{pattern} cannot be read: {error}") from error
    return list(found)


def stamps(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Returns the path, size and modification time of each file, which differ when a file changes."""
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def is_accessible_file(path: Path) -> bool:
    """Whether a path is an accessible file; False for names that the system rejects."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def suffix_of(path: Path) -> str:
    """Returns a file's suffix without that of compression, in lower case: ".jsonl" of pairs.jsonl.gz."""
    name = path.with_suffix("") if path.suffix.lower() in _OPENERS else path
    return name.suffix.lower()


def read_text(path: Path) -> Iterator[str]:
    """Yields a UTF-8 file in chunks, without a byte order mark and with all line ends as a line feed.

    Raises:
        DataError: invalid UTF-8, with the position of the first byte, or a file that cannot be read or decompressed.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = io.IncrementalNewlineDecoder(decoder, translate=True)
    offset, feeds, begun = 0, 0, False
    for block in read_bytes(path):
        held = len(decoder.getstate()[0])  # the first bytes of a character divided between two blocks
        try:
            text = lines.decode(block, final=not block)
        except UnicodeDecodeError as error:
            place = offset - held + error.start
            value = error.object[error.start]
            line = feeds + error.object[: error.start].count(b"\n") + 1
            raise DataError(
                f"{path} is not UTF-8: byte {place} is 0x{value:02x} in line {line} ({error.reason}); convert the "
                "file, for example with: iconv -f latin1 -t utf-8"
            ) from error
        yield text if begun else text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
        begun = begun or bool(text)
        offset += len(block)
        feeds += block.count(b"\n")


def read_lines(path: Path) -> Iterator[str]:
    """Yields the lines of a UTF-8 file without line ends; see `read_text`."""
    held: list[str] = []  # the chunks of a line, joined once, so that a long line is copied only once
    for piece in read_text(path):
        first, *rest = piece.split("\n")
        held.append(first)
        if rest:
            yield "".join(held)
            *whole, last = rest
            yield from whole
            held = [last]
    if line := "".join(held):
        yield line


def did_you_mean(name: str, names: Iterable[Any]) -> str:
    """Returns "; did you mean NAME?" with the most similar name, to append to a message, or ""."""
    near = get_close_matches(name, [str(other) for other in names], n=1)
    return f"; did you mean {near[0]}?" if near else ""


def read_bytes(path: Path) -> Iterator[bytes]:
    """Yields a file's bytes, decompressed, in blocks, the last of which is empty.

    Raises:
        DataError: a file that cannot be read or decompressed.
    """
    try:
        opener = _OPENERS.get(path.suffix.lower())
        with opener(path) if opener else path.open("rb") as file:
            while block := file.read(_PIECE):
                yield block
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    yield b""


def _matches(pattern: str, suffixes: Sequence[str]) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        below = (Path(folder, name) for folder, _, names in os.walk(path, onerror=_refuse) for name in names)
        found = sorted(file for file in below if suffix_of(file) in suffixes and file.is_file())
        if not found:
            raise DataError(
                f"folder {pattern} contains no {' or '.join(suffixes)} file; give a pattern such as "
                f"{pattern.rstrip('/')}/*.md"
            )
        return found
    if path.is_file():
        return [path]
    if glob.has_magic(pattern):
        found = sorted({below for below in map(Path, _expanded(str(path))) if below.is_file()})
        if not found:
            raise DataError(f"no file matches {pattern} (working directory {Path.cwd()})")
        return found
    raise DataError(f"no file or folder {pattern} (working directory {Path.cwd()}){_nearest_path(path)}")


def _expanded(pattern: str) -> Iterator[str]:
    """Yields the matches of a glob pattern. `**` visits each folder once; glob follows a link to itself 40 times."""
    deep = _DEEP.search(pattern)
    if deep is None:
        yield from glob.glob(pattern)  # noqa: PTH207 - Path.glob refuses absolute patterns
        return
    seen: set[tuple[int, int]] = set()
    for root in _expanded(pattern[: deep.start()] or "."):
        for folder, folders, _ in os.walk(root, onerror=_refuse, followlinks=True):
            about = Path(folder).stat()
            if (about.st_dev, about.st_ino) in seen:
                folders.clear()
                continue
            seen.add((about.st_dev, about.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from _expanded(str(Path(glob.escape(folder), pattern[deep.end() :] or "*")))


def _refuse(error: OSError) -> None:
    raise error


def _nearest_path(path: Path) -> str:
    siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    return did_you_mean(path.name, siblings)
