"""Prepared data on disk: made once, behind a lock, never seen half, and made again when they are damaged."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from unrolled import durable

_log = logging.getLogger(__name__)


def cache_folder(given: str | None) -> Path:
    """Where prepared data lie: the folder given, or else $UNROLLED_CACHE, or else ~/.cache/unrolled."""
    return Path(given or os.environ.get("UNROLLED_CACHE") or "~/.cache/unrolled").expanduser()


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, filled by `make` unless it is there and whole; every process may ask at once.

    It is made beside its place, synced, and moved there when it is whole: after an error or a crash there is none. A
    folder whose files are not those that were written is made again.

    Args:
        folder: its place. The name has to differ whenever the contents do.
        make: fills the empty folder that it is given.
    """
    if _is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_whole(folder):
            # With the lock held, a leftover has no owner.
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
            shutil.rmtree(folder, ignore_errors=True)  # damaged, if there is one
            durable.move_folder(partial_folder, folder)
    return folder


def _is_whole(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        durable.check_folder(folder)
    except durable.DamagedFileError as error:
        _log.warning("%s; it is made again", error)
        return False
    return True
