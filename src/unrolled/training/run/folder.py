"""The folder of a run: locked while the run is active, and never overwritten by another run."""

import logging
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.configuration.run_dir import files_of_run

_LOCK = ".lock"
_log = logging.getLogger(__name__)


class FolderError(ConfigurationError):
    """A folder that belongs to another run and is left unchanged."""


@contextmanager
def lock_folder(folder: Path, *, resume: Path | None) -> Generator[None]:
    """Locks a run's folder inside the context. Rank 0 does so for all processes.

    Args:
        folder: of the run; created if needed.
        resume: the checkpoint that the run resumes from; a run may add to the folder that contains it.

    Raises:
        FolderError: another run is writing to the folder, or the folder contains another run.
        OSError: the folder cannot be created or written to.
    """
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise FolderError(
            f"run_dir={folder}: another run is writing to this folder; give this run another one"
        ) from None
    except NotImplementedError:  # a file system without locks
        _log.warning("%s: this file system has no locks; make sure that no other run writes to this folder", folder)
    try:
        resumed = resume is not None and resume.resolve().is_relative_to(folder.resolve())
        existing = files_of_run(folder)
        if existing and not resumed:
            raise FolderError(
                f"run_dir={folder}: this folder contains another run ({existing[0].relative_to(folder)}), which would "
                f"be overwritten; give another folder, remove the old run, or resume it: resume={folder}"
            )
        yield
    finally:
        lock.release()
        if created and all(path.name == _LOCK for path in folder.iterdir()):  # the run did not start
            shutil.rmtree(folder)
