"""The folder of a run: one run at a time, and no run over another."""

import logging
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from unrolled.training.configuration.options import ConfigurationError

_LOCK = ".lock"
_log = logging.getLogger(__name__)


class FolderError(ConfigurationError):
    """A folder that is another run's, and stays as it is."""


@contextmanager
def owned(folder: Path, *, resume: Path | None) -> Generator[None]:
    """Holds a run's folder for as long as it runs; the process that started the others does so for them.

    Args:
        folder: of the run; made if needed.
        resume: the checkpoint that the run goes on from; a run that lies in its folder may be added to.

    Raises:
        FolderError: another run is writing there, or has written there.
        OSError: it can't be made or written to.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise FolderError(
            f"run_dir={folder}: another run is writing there now; give this one a folder of its own"
        ) from None
    except NotImplementedError:  # a file system without locks
        _log.warning("%s: this file system has no locks; make sure that no other run writes there", folder)
    try:
        going_on = resume is not None and resume.resolve().is_relative_to(folder.resolve())
        left = [*folder.glob("summary.json"), *sorted(folder.glob("checkpoints/*.ckpt"))]
        if left and not going_on:
            raise FolderError(
                f"run_dir={folder}: a run is there ({left[0].relative_to(folder)}), which this would overwrite; give "
                f"it another folder, remove that one, or go on with it: resume={folder}"
            )
        yield
    finally:
        lock.release()
        if made and all(path.name == _LOCK for path in folder.iterdir()):  # the run never began
            shutil.rmtree(folder)
