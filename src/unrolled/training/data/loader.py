"""A loader of planned batches: exact position, scale of the loss, processes, and reading in worker processes.

A plan decides what each batch reads, a store holds encoded examples in memory or on disk, and `collate` builds a batch.
So batch k of an epoch is the same in every process, after a resume, and with any number of workers.
"""

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypedDict, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from unrolled.training.console.signals import SIGNALS

I_co = TypeVar("I_co", covariant=True)
I = TypeVar("I")  # noqa: E741 - the item of a plan
S = TypeVar("S")
B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)


class Plan(Protocol[I_co]):
    """What the batches of an epoch read: arithmetic that every process computes alike."""

    @property
    def ranks(self) -> int:
        """Number of processes."""
        ...

    @property
    def num_batches(self) -> int:
        """Number of batches of a process, equal for all processes and epochs, since a Trainer reads it once."""
        ...

    def predictions(self, epoch: int, index: int) -> int:
        """Returns the number of predictions of a batch that count, over all processes."""
        ...

    def item(self, epoch: int, index: int, rank: int) -> I_co:
        """Returns what a process's batch is made of; it may depend on nothing else."""
        ...


class LoaderState(TypedDict):
    """Position of a loader: the epoch, and the number of its batches that were returned."""

    epoch: int
    position: int


class PlannedLoader(Generic[S, I, B]):
    """Iterates over one process's batches of a plan, epoch after epoch.

    The loader counts epochs itself: a new iteration continues where the previous one stopped. Lightning saves and
    restores its position with every checkpoint. When it resumes at the end of an epoch, it may read a batch of the next
    epoch in the old one, but no batch is lost or read twice.

    Args:
        plan: the batches of all processes.
        store: the encoded examples.
        collate: builds a batch from the store, an item of the plan, and the factor of the summed loss. After
            Lightning's division by accumulated batches and the mean over processes, this factor makes the gradient of
            an optimizer step the mean over all its predictions. With workers, it must draw no random number that does
            not follow from the item.
        rank: rank of this process.
        accumulate: number of batches whose gradients are accumulated for an optimizer step.
        limit: the Trainer's `limit_train_batches`: number of batches of an epoch that are used (int), or their fraction
            (float). The epoch's last step may then accumulate fewer batches.
        restart: begin with the first epoch at each iteration, as for validation, which may end early.
        workers: number of worker processes that read and collate batches ahead; 0 to do so in this process.

    Raises:
        ValueError: a rank outside 0 … ranks − 1, accumulate below 1, or workers below 0.
    """

    def __init__(
        self,
        plan: Plan[I],
        store: S,
        collate: Callable[[S, I, float], B],
        *,
        rank: int = 0,
        accumulate: int = 1,
        limit: int | float | None = None,
        restart: bool = False,
        workers: int = 0,
    ) -> None:
        if not 0 <= rank < plan.ranks or accumulate < 1 or workers < 0:
            raise ValueError(
                f"rank={rank} must be in 0 … {plan.ranks - 1}, accumulate={accumulate} 1 or more, and "
                f"workers={workers} 0 or more"
            )
        self.plan, self.store, self.collate = plan, store, collate
        self.rank, self.accumulate, self.workers = rank, accumulate, workers
        self.epoch = 0
        self._position = 0
        self._restart = restart
        taken = limit if isinstance(limit, int) else len(self) if limit is None else int(len(self) * limit)
        self.taken = min(taken, len(self))
        self._step: tuple[int, int, int] = (-1, -1, 0)  # epoch, first index and predictions of the last scaled step

    def __len__(self) -> int:
        """Number of batches of an epoch, equal on every process and in every epoch."""
        return self.plan.num_batches

    def __iter__(self) -> Iterator[B]:
        # Evaluated with the first batch, so that a position restored before then is used.
        if self._restart:
            self.epoch, self._position = 0, 0
        epoch, position = self.epoch, self._position
        for index, batch in enumerate(self._batches(epoch, range(position, self.taken)), start=position):
            # Updated before the batch is returned: a checkpoint saved during its step counts it as read, and Lightning
            # never requests a batch after the last of a sized loader.
            last = index + 1 == self.taken
            self.epoch, self._position = (epoch + 1, 0) if last else (epoch, index + 1)
            yield batch

    def state_dict(self) -> LoaderState:
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: LoaderState) -> None:
        """Restores a position: the next iteration continues after the last returned batch.

        Raises:
            ValueError: the position is outside this plan.
        """
        if not 0 <= state["position"] <= len(self):
            raise ValueError(
                f"cannot resume after batch {state['position']} of an epoch of {len(self)}: the data, the batch size, "
                "the window or the number of processes has changed; resume with the old ones, or start from the weights"
            )
        self.epoch, self._position = state["epoch"], state["position"]

    def batch(self, epoch: int, index: int) -> B:
        """Returns the batch with this index in this epoch."""
        return self.collate(self.store, self.plan.item(epoch, index, self.rank), self._scale(epoch, index))

    def _batches(self, epoch: int, indices: range) -> Iterator[B]:
        if self.workers == 0 or not indices:
            return (self.batch(epoch, index) for index in indices)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")  # the user asked for them
            ahead: DataLoader[B] = DataLoader(
                _Epoch(self, epoch),
                sampler=indices,
                batch_size=None,
                num_workers=min(self.workers, len(indices)),
                collate_fn=_unchanged,
                worker_init_fn=_leave_signals_to_run,
                generator=torch.Generator(),  # of its own, since it draws from the global one
            )
            return iter(ahead)

    def _scale(self, epoch: int, index: int) -> float:
        first = index - index % self.accumulate
        if self._step[:2] != (epoch, first):
            stop = max(index + 1, min(first + self.accumulate, self.taken))
            predictions = sum(self.plan.predictions(epoch, k) for k in range(first, stop))
            self._step = (epoch, first, predictions)
        return self.accumulate * self.plan.ranks / max(self._step[2], 1)


class _Epoch(Dataset[B_co]):
    """The batches of an epoch by index, for torch's DataLoader."""

    def __init__(self, loader: PlannedLoader[Any, Any, B_co], epoch: int) -> None:
        self._loader, self._epoch = loader, epoch

    def __getitem__(self, index: int) -> B_co:
        return self._loader.batch(self._epoch, index)


def _unchanged(batch: B) -> B:
    return batch


def _leave_signals_to_run(worker: int) -> None:
    """Keeps signals that end a run after its step from ending a worker before that.

    They reach workers through the process group, as from a terminal, or as children of a step of SLURM. SIGTERM from
    the run itself ends a worker: Python sends it at its exit, and waits for the worker.
    """
    os.setpgid(0, 0)
    for number in SIGNALS:
        if number is not signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # tells the sender; macOS lacks it
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with_run, args=(os.getppid(),), daemon=True).start()


def _end_with_run(run: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != run:
        continue
    os._exit(0)
