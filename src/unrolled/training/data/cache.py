"""Cache of prepared data: created once under a lock, published atomically, and recreated if damaged."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from unrolled import durable

_log = logging.getLogger(__name__)


def cache_folder(given: str | None) -> Path:
    """Returns the folder of prepared data: the given one, or $UNROLLED_CACHE, or ~/.cache/unrolled."""
    return Path(given or os.environ.get("UNROLLED_CACHE") or "~/.cache/unrolled").expanduser()


def get_or_create(folder: Path, make: Callable[[Path], None]) -> Path:
    """Returns a folder, created by `make` unless it exists and is complete. Processes may call it concurrently.

    The content is written to a temporary folder, synced, and moved into place when it is complete, so that an error or
    a crash leaves no folder. A folder whose files have changed since then is created again.

    Args:
        folder: its path. The name has to differ whenever the content does.
        make: called with an empty folder, which it fills.
    """
    if _is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_whole(folder):
            # No other process can be using a leftover while this one holds the lock.
            partial_folder = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(partial_folder, ignore_errors=True)
            partial_folder.mkdir()
            try:
                make(partial_folder)
                durable.finish_folder(partial_folder)
            except BaseException as error:
                shutil.rmtree(partial_folder, ignore_errors=True)
                if isinstance(error, OSError) and error.filename is None:  # as of a full disk
                    raise OSError(error.errno, error.strerror or str(error), str(folder)) from error
                raise
            shutil.rmtree(folder, ignore_errors=True)  # damaged, if it exists
            durable.move_folder(partial_folder, folder)
    return folder


def _is_whole(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        durable.check_folder(folder)
    except durable.DamagedFileError as error:
        _log.warning("%s; it is created again", error)
        return False
    return True
