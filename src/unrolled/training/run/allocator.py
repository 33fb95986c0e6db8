"""Memory that a training step frees is what the next one asks for: on glibc, ask the allocator to keep it."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 2**31 - 1  # mallopt takes an int


def keep_freed_memory() -> bool:
    """Stops malloc from handing large blocks back to the system after each use.

    By default glibc maps every block above 32 MiB afresh and returns the heap's end, so that each training step on the
    CPU pays page faults for the same memory again. The price is that the process keeps its peak.

    Returns:
        whether it was done: only glibc has these knobs.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version") or not hasattr(library, "mallopt"):
        return False
    return bool(library.mallopt(M_MMAP_THRESHOLD, 1 << 30) and library.mallopt(M_TRIM_THRESHOLD, LARGEST))
