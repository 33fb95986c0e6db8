"""Compiles C++ to shared libraries and loads them, with a cache that several processes can share.

The name of a library contains a digest of everything that determines its content: sources, flags, compiler, torch and
processor. It is compiled in a hidden folder and renamed when it is complete, under a lock, so that no process sees a
partial file. Its digest is verified before it is loaded, since a truncated library ends the process (SIGBUS); a damaged
library is compiled again.
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

# Without -ffast-math: linked into a library, it would make the whole process flush subnormal numbers to zero.
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
_REMEDY = "set UNROLLED_CACHE to a folder of your own with free space"


class CompilerError(RuntimeError):
    """A library can't be compiled, stored or loaded on this machine."""


class CacheError(CompilerError):
    """A library can't be stored or loaded."""


class Compiler(NamedTuple):
    """A C++ compiler, its version output, and its flags on this machine."""

    path: str
    version: str
    flags: tuple[str, ...]


@cache
def find_compiler(wanted: str | None, path: str | None) -> Compiler:
    """Return the compiler `wanted`, or else c++, g++ or clang++ from a search path.

    Raises:
        CompilerError: no compiler is found, or it doesn't run.
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
    # torch's own OpenMP if its symbols are visible: two thread pools would compete for the processor.
    seen = hasattr(ctypes.CDLL(None), "GOMP_parallel")
    flags += ["-fopenmp", *(["-nodefaultlibs", "-lstdc++", "-lm", "-lc", "-lgcc_s", "-lgcc"] if seen else [])]
    return Compiler(found, version, tuple(flags))


def supports_bfloat16_products() -> bool:
    """Return whether the processor multiplies pairs of bfloat16 and accumulates them in float32 (AVX512_BF16)."""
    flags = (line.partition(":")[2].split() for line in processor().splitlines() if line.startswith("flags"))
    return any("avx512_bf16" in words for words in flags)


@cache
def processor() -> str:
    """Return the processor's model and features, on which -march=native depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    words = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(words)}))


def cache_folder() -> Path:
    """Return the folder of compiled libraries: `compiled` in $UNROLLED_CACHE, or else in ~/.cache/unrolled.

    Raises:
        CacheError: the user has no home folder.
    """
    wanted = Path(os.environ.get("UNROLLED_CACHE") or "~/.cache/unrolled")
    try:
        return wanted.expanduser() / "compiled"
    except RuntimeError as error:
        raise CacheError(f"the cache {wanted} cannot be used ({error}); {_REMEDY}") from error


def load(name: str, source: str, dtype: torch.dtype, *, bfloat16_products: bool = False) -> ctypes.CDLL:
    """Load the library of a C++ source, which may include this package's headers. It is compiled if it isn't cached.

    Args:
        name: prefix of the file name.
        source: C++ source.
        dtype: dtype of its numbers, float32 or float64.
        bfloat16_products: whether the factors of its products are rounded to bfloat16.

    Raises:
        CompilerError: no compiler, or a compilation error.
        CacheError: a cache that cannot be written to.
    """
    compiler = find_compiler(os.environ.get("CXX"), os.environ.get("PATH"))
    native = resources.files("unrolled.backends.compiled") / "native"
    included = {file: (native / file).read_text() for file in ("lanes.h", "products.h")}
    flags = (
        *compiler.flags,
        f"-DREAL={'float' if dtype == torch.float32 else 'double'}",
        *(["-DHALF"] if bfloat16_products else []),
    )
    parts = [source, *included.values(), *flags, compiler.path, compiler.version, torch.__version__, processor()]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    folder = cache_folder()
    try:
        check_private(folder)
        library = folder / f"{name}-{key}.so"
        if not _is_whole(library):
            with locked(folder / f"{name}-{key}.lock"):
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


def check_private(folder: Path) -> None:
    """Create a folder to which only this user can write, since code is loaded from it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid not in (os.getuid(), 0) or found.st_mode & 0o022:
        raise OSError(f"{folder} belongs to another user or may be written by others")


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold a file lock between processes. It is released when the holding process ends."""
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
            raise CompilerError(f"{compiler} did not finish within {_SECONDS} seconds") from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            raise CompilerError(f"{compiler} failed: {' '.join(lines[:1]) or 'no message'}")
        compiled = (folder / "library.so").read_bytes()
        durable.write(library, lambda file: file.write(compiled), size=len(compiled))
