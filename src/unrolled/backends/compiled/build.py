"""C++ into loaded libraries: a compiler of the machine, and a cache that many processes may share.

A library is named after all that decides what is in it: sources, flags, compiler, torch, processor. It is compiled in a
hidden folder and moved into place when it is whole, behind a lock, so that it is never seen half. Its digest is checked
before it is loaded, since a library that was cut short ends the process (SIGBUS); a damaged one is compiled again.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch

from unrolled import durable

# Nothing of -ffast-math: linked into a library, it would make the whole process flush subnormal numbers to zero.
_FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-shared",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
]
_SECONDS = 300
_REMEDY = "set UNROLLED_CACHE to a folder of your own with room"


class CompilerError(RuntimeError):
    """No library can be made or kept on this machine."""


class CacheError(CompilerError):
    """No library can be kept or loaded."""


class Compiler(NamedTuple):
    """A C++ compiler, what it says of itself, and its flags here."""

    path: str
    version: str
    flags: tuple[str, ...]


@cache
def find_compiler(wanted: str | None, path: str | None) -> Compiler:
    """The compiler `wanted`, or else c++, g++ or clang++ from a search path.

    Raises:
        CompilerError: there is none that runs.
    """
    if sys.platform == "win32":
        raise CompilerError("compiling is not supported on Windows")
    names = [wanted] if wanted else ["c++", "g++", "clang++"]
    found = next(filter(None, (shutil.which(name, path=path) for name in names)), None)
    if found is None:
        raise CompilerError(f"no C++ compiler: {', '.join(names)} not found on PATH; install g++, or set CXX")
    try:
        version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise CompilerError(f"the C++ compiler {found} does not run: {error}") from error
    flags = [*_FLAGS]
    if platform.machine().lower() in ("x86_64", "amd64"):
        flags.append("-mprefer-vector-width=512")
    # torch's own OpenMP, where its symbols are in sight: two pools of threads would take the processor from another.
    seen = hasattr(ctypes.CDLL(None), "GOMP_parallel")
    flags += ["-fopenmp", *(["-nodefaultlibs", "-lstdc++", "-lm", "-lc", "-lgcc_s", "-lgcc"] if seen else [])]
    return Compiler(found, version, tuple(flags))


def multiplies_halves() -> bool:
    """Whether the processor has products of bfloat16 pairs that are summed in float32 (AVX512_BF16)."""
    flags = (line.partition(":")[2].split() for line in processor().splitlines() if line.startswith("flags"))
    return any("avx512_bf16" in words for words in flags)


@cache
def processor() -> str:
    """The processor's kind and abilities, which -march=native looks at."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    words = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(words)}))


def cache_folder() -> Path:
    """Where compiled libraries lie: `compiled` in $UNROLLED_CACHE, or else in ~/.cache/unrolled.

    Raises:
        CacheError: ~ is nobody's home.
    """
    wanted = Path(os.environ.get("UNROLLED_CACHE") or "~/.cache/unrolled")
    try:
        return wanted.expanduser() / "compiled"
    except RuntimeError as error:
        raise CacheError(f"the cache {wanted} cannot be used ({error}); {_REMEDY}") from error


def load(name: str, source: str, dtype: torch.dtype, *, halves: bool = False) -> ctypes.CDLL:
    """The library of a C++ source that may include this package's, compiled unless the cache has it.

    Args:
        name: what its file begins with.
        source: C++.
        dtype: of its numbers, float32 or float64.
        halves: round to bfloat16 what enters its products.

    Raises:
        CompilerError: no compiler, or an error of it.
        CacheError: a cache that cannot be written to.
    """
    compiler = find_compiler(os.environ.get("CXX"), os.environ.get("PATH"))
    native = resources.files("unrolled.backends.compiled") / "native"
    included = {file: (native / file).read_text() for file in ("lanes.h", "products.h")}
    flags = (
        *compiler.flags,
        f"-DREAL={'float' if dtype == torch.float32 else 'double'}",
        *(["-DHALF"] if halves else []),
    )
    parts = [source, *included.values(), *flags, compiler.path, compiler.version, torch.__version__, processor()]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    folder = cache_folder()
    try:
        _check_private(folder)
        library = folder / f"{name}-{key}.so"
        if not _is_whole(library):
            with _locked(folder / f"{name}-{key}.lock"):
                if not _is_whole(library):
                    _compile(compiler.path, flags, {"source.cpp": source, **included}, library)
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise CacheError(f"the cache {folder} cannot be used ({error}); {_REMEDY}") from error


def _is_whole(library: Path) -> bool:
    try:
        durable.check(library, required=True)
    except (FileNotFoundError, durable.DamagedFileError):
        return False
    return True


def _check_private(folder: Path) -> None:
    """Make a folder to which nobody else may write: code is loaded from it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid not in (os.getuid(), 0) or found.st_mode & 0o022:
        raise OSError(f"{folder} belongs to another user or may be written by others")


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Holds a file lock, from process to process; it ends with the process that holds it."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(compiler: str, flags: tuple[str, ...], sources: dict[str, str], library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".compiling-") as name:
        folder = Path(name)
        for file, text in sources.items():
            (folder / file).write_text(text)
        first = [flag for flag in flags if not flag.startswith("-l")]
        last = [flag for flag in flags if flag.startswith("-l")]
        command = [compiler, *first, "source.cpp", "-o", "library.so", *last]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
        except subprocess.SubprocessError as error:
            raise CompilerError(f"{compiler} did not end within {_SECONDS} seconds") from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            raise CompilerError(f"{compiler} fails: {' '.join(lines[:1]) or 'no message'}")
        compiled = (folder / "library.so").read_bytes()
        durable.write(library, lambda file: file.write(compiled), size=len(compiled))
