"""The processes of a run on this node: started if no launcher has, and ended together.

torchrun and SLURM end the processes of a run, too. What they do not see, such as a process that waits for one on
another node, ends here, and in each case a message names the process that has ended first.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_original_cwd
from lightning.pytorch import Trainer
from omegaconf import DictConfig

from unrolled.training.console.signals import SIGNALS
from unrolled.training.run.agreement import share
from unrolled.training.run.environment import starts_others
from unrolled.training.run.ranks import PARENT, STARTED_BY, RankError, failure, leave, lost, place, report_failure
from unrolled.training.run.records import FAILED

POLL = 0.5  # seconds between two looks at the other processes
GRACE = 5.0  # seconds in which a process may end by itself after another one has failed
_ORDERLY = (0, *(128 + number for number in SIGNALS))  # exit statuses of a run in which nothing failed
_LOST = ("gloo", "Connection closed by peer", "Connection reset by peer")  # in errors of torch's collectives

Children = Mapping[int, "subprocess.Popen[bytes]"]  # by rank


@contextmanager
def together(config: DictConfig, trainer: Trainer) -> Generator[None]:
    """Passes the configuration to the other processes, starts them if no launcher has, and ends with all of them.

    A thread looks after the processes. If one fails, this one has `GRACE` seconds to end by itself, for example with
    the same error. Then it is ended, with the processes that it has started.

    Raises:
        RankError: another process has ended or does not answer; names it.
    """
    if trainer.world_size == 1 or not (place() or starts_others(trainer)):
        yield
        return
    share(config, trainer)
    with _children(trainer) as children:
        watch = Watch(children, trainer)
        watch.start()
        try:
            yield
            watch.leave(seconds=60)
        except SystemExit:  # after a signal
            watch.leave(seconds=2 * GRACE)
            raise
        except BaseException as error:
            if _is_loss(error):
                raise RankError(watch.cause()) from error
            if not isinstance(error, RankError):
                said = f"{type(error).__name__}: {error}"
                _begin(lambda: report_failure(trainer.global_rank, said)).join(2)
            raise
        finally:
            watch.stop()


@contextmanager
def _children(trainer: Trainer) -> Generator[Children]:
    """Starts this command once for each further device of this node, and kills what is left of them at the end."""
    if not starts_others(trainer):
        yield {}
        return
    main = sys.modules["__main__"].__spec__
    folder = Path(get_original_cwd()) if HydraConfig.initialized() else Path.cwd()
    command = [sys.executable, *(["-m", main.name] if main else [str(folder / sys.argv[0])]), *sys.argv[1:]]
    first = int(os.environ[STARTED_BY].split(":")[1])
    os.environ["LOCAL_RANK"], os.environ["WORLD_SIZE"] = "0", str(trainer.world_size)
    children: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for local in range(1, trainer.num_devices):
            variables = {**os.environ, "LOCAL_RANK": str(local)}
            children[first + local] = subprocess.Popen(command, cwd=folder, env=variables)
        yield children
    finally:
        _kill(children)
        for name in ("LOCAL_RANK", "WORLD_SIZE", STARTED_BY):  # the address stays: the store is there for a next run
            os.environ.pop(name, None)


class Watch(threading.Thread):
    """Looks after the processes of a run, and ends this one after another has failed.

    Args:
        children: the processes that this one has started.
        trainer: of the run.
    """

    def __init__(self, children: Children, trainer: Trainer) -> None:
        super().__init__(daemon=True, name="watch")
        self._children = children
        self._rank, self._world_size = trainer.global_rank, trainer.world_size
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(POLL):
            reason = self.reason()
            if reason and not self._stopped.wait(GRACE):
                _kill(self._children)
                for worker in multiprocessing.active_children():
                    worker.kill()
                os.write(2, f"{reason}; rank {self._rank} ends, too\n".encode())
                sys.stdout.flush()
                os._exit(FAILED)

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()

    def leave(self, seconds: float) -> None:
        """Waits for the others at the end of the run, and first for the processes that this one has started.

        Raises:
            RankError: a process that this one has started has failed.
        """
        deadline = time.monotonic() + seconds
        leaving = _begin(lambda: leave(self._rank, self._world_size))
        while any(child.poll() is None for child in self._children.values()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if failed := self._failed_child():
            raise RankError(failed)
        leaving.join(max(0, deadline - time.monotonic()))

    def reason(self) -> str:
        """Returns what has failed; empty if nothing has."""
        if failed := self._failed_child():
            return failed
        here = place()
        if here is not None and os.getppid() != PARENT:
            return f"{here.started_by} has ended"
        # The process that has started this one asks for both.
        return failure() if here is None or not here.started_by.startswith("rank") else ""

    def _failed_child(self) -> str:
        for rank, child in self._children.items():
            status = child.poll()
            if status not in (None, *_ORDERLY):
                return failure() or f"rank {rank} (process {child.pid}) {_described(status)}"
        return ""

    def cause(self) -> str:
        """Returns which process has ended, after a connection to another one broke. Takes some seconds to find out."""
        found: list[str] = []
        thread = _begin(lambda: found.append(lost(self._rank, self._world_size, seconds=GRACE)))
        deadline = time.monotonic() + 3 * GRACE
        while thread.is_alive() and time.monotonic() < deadline:
            if failed := self._failed_child():
                return failed
            thread.join(POLL)
        return found[0] if found else "rank 0 does not answer"  # it has the store


def _begin(function: Callable[[], object]) -> threading.Thread:
    """Calls a function in a thread, since a question to a process that is stopped never returns."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def _is_loss(error: BaseException) -> bool:
    """Whether an error is one of torch's collectives about the connection to another process."""
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST)
    )


def _described(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"has ended with status {status}"


def _kill(children: Children) -> None:
    for child in children.values():
        child.kill()  # has no effect on a process that has ended
        child.wait()
