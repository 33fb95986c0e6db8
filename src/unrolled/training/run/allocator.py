"""Setting of glibc's allocator: freed memory is kept, since the next training step allocates the same sizes."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 2**31 - 1  # mallopt takes an int


def keep_freed_memory() -> bool:
    """Stops malloc from returning large freed blocks to the system.

    By default glibc maps every block above 32 MiB anew and returns the end of the heap, so that each training step on
    the CPU causes page faults for the same memory. With this setting the process keeps its peak memory.

    Returns:
        whether the setting was applied; only glibc has it.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version") or not hasattr(library, "mallopt"):
        return False
    return bool(library.mallopt(M_MMAP_THRESHOLD, 1 << 30) and library.mallopt(M_TRIM_THRESHOLD, LARGEST))
