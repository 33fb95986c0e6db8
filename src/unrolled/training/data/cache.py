"""Cache of prepared data: created once under a lock, published atomically, and recreated if damaged."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from unrolled import durable

_log = logging.getLogger(__name__)


def cache_folder(given: str | None) -> Path:
    """Returns the folder of prepared data: the given one, or $UNROLLED_CACHE, or ~/.cache/unrolled."""
    return Path(given or os.environ.get("UNROLLED_CACHE") or "~/.cache/unrolled").expanduser()


class Cached(NamedTuple):
    """Prepared data: a folder of files, and plain data about them."""

    folder: Path
    about: dict[str, Any]


def cached(cache: Path, kind: str, key: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any]]) -> Cached:
    """Returns prepared data, made unless the cache has them. Processes may call it concurrently.

    Args:
        cache: folder of all prepared data.
        kind: begins the folder's name, such as "pairs".
        key: plain data that differ whenever the prepared data do.
        make: called with an empty folder, which it fills; returns plain data about the files.
    """

    def write(folder: Path) -> None:
        (folder / "about.json").write_text(json.dumps(make(folder), ensure_ascii=False), encoding="utf-8")

    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:24]
    folder = get_or_create(cache / f"{kind}-{digest}", write)
    return Cached(folder, json.loads((folder / "about.json").read_text(encoding="utf-8")))


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
