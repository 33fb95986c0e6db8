"""Prepared data on disk: made once, behind a lock, and never seen half."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def cache_folder(given: str | None) -> Path:
    """Where prepared data lie: the folder given, or else $UNROLLED_CACHE, or else ~/.cache/unrolled."""
    return Path(given or os.environ.get("UNROLLED_CACHE") or "~/.cache/unrolled").expanduser()


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, filled by `make` unless it is there; every process may ask at once.

    It is made beside its place and moved there when it is whole: after an error or a crash there is none.

    Args:
        folder: its place. The name has to differ whenever the contents do.
        make: fills the empty folder that it is given.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            # Behind the lock, a leftover has no owner.
            partial_folder = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(partial_folder, ignore_errors=True)
            partial_folder.mkdir()
            try:
                make(partial_folder)
            except BaseException:
                shutil.rmtree(partial_folder, ignore_errors=True)
                raise
            partial_folder.replace(folder)
    return folder
