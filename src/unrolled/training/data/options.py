"""Options that several data classes take, as dataclasses, one a concern. See `unrolled.training.configuration.flat`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.plans import StreamPlan

Patterns = str | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Where the examples come from.

    Attributes:
        files: paths, folders or patterns of files, one or several.
        validation_files: as `files`; None to split them off the training examples.
        test_files: as `files`; None to split them off the training examples.
        dataset: a data set for `datasets.load_dataset`.
        dataset_options: its options; `splits` gives the names of its splits.
        rows: for each split that has its own, rows in memory: cells by column. Configuration files cannot give them.

    Raises:
        DataError: options of files without files, or of a data set without one.
    """

    files: Patterns | None = None
    validation_files: Patterns | None = None
    test_files: Patterns | None = None
    dataset: str | None = None
    dataset_options: Mapping[str, Any] | None = None
    rows: Mapping[str, Sequence[Mapping[Any, Any]]] | None = None

    def __post_init__(self) -> None:
        if self.files is None and (self.validation_files is not None or self.test_files is not None):
            raise DataError("validation_files and test_files need files")
        if self.dataset is None and self.dataset_options:
            raise DataError("dataset_options need dataset")

    @property
    def patterns(self) -> dict[str, Patterns]:
        """The files of each split that has its own."""
        given = zip(SPLITS, (self.files, self.validation_files, self.test_files), strict=True)
        return {split: each for split, each in given if each is not None}

    def check_exactly_one(self, what: str, **others: Any) -> None:
        """Checks that one source is given: files, a data set, or another one of the task.

        Args:
            what: name of the examples, for the message.
            others: the task's other sources by name; None where one is not given.

        Raises:
            DataError: none or several are given.
        """
        given = {"files": self.files, "dataset": self.dataset, **others}
        chosen = [name for name, value in {**given, "rows": self.rows}.items() if value is not None]
        if len(chosen) != 1:
            raise DataError(f"give exactly one of {', '.join(given)} for {what}; got {' and '.join(chosen) or 'none'}")


@dataclass(frozen=True, kw_only=True)
class Batching:
    """Batches of examples of similar length. Give one of `batch_size` and `batch_tokens`.

    Attributes:
        batch_size: number of rows of a process's batch.
        batch_tokens: maximum of rows × longest row of a process's batch, in tokens or frames, including padding.
        scoring_batch_size: number of rows of a batch of validation and test; None: as in training.
        workers: number of processes that open files and build batches ahead of training; 0 to do so in the training
            process. The batches are the same.
        seed: seed of the order and of augmentation.

    Raises:
        DataError: not exactly one budget, a budget below 1, or workers below 0.
    """

    batch_size: int | None = None
    batch_tokens: int | None = None
    scoring_batch_size: int | None = None
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        given = [budget for budget in (self.batch_size, self.batch_tokens) if budget is not None]
        if len(given) != 1 or given[0] < 1:
            raise DataError(f"give one of batch_size={self.batch_size} and batch_tokens={self.batch_tokens}, 1 or more")
        if self.scoring_batch_size is not None and self.scoring_batch_size < 1:
            raise DataError(f"scoring_batch_size={self.scoring_batch_size} must be 1 or more, or null")
        check_workers(self.workers)

    def budget(self, *, scored: bool) -> dict[str, int | None]:
        """Returns the two budgets of a `BucketPlan`, for training or for scoring."""
        if scored and self.scoring_batch_size is not None:
            return {"batch_size": self.scoring_batch_size, "batch_tokens": None}
        return {"batch_size": self.batch_size, "batch_tokens": self.batch_tokens}


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """Windows of parallel streams of text; see `StreamPlan`.

    Attributes:
        batch_size: number of parallel streams of a process.
        window: steps of truncated backpropagation.
        stride: new predictions in a window; None for all its steps.
        random_length: use training windows of random length around `window`.
        shift: give the first training window of an epoch a random length; None: unless `random_length` is set.
        concatenate: concatenate all documents of a split to one text; otherwise each begins with a new state.
        validation_streams: maximum number of parallel rows of the validation text, for any number of processes.
        random_windows: {length, count, batch_size} of windows at random positions, for a second test; or None.
        workers: number of processes that build windows ahead of training; 0 to do so in the training process. The
            windows are the same.
        seed: seed of the windows' random numbers.

    Raises:
        DataError: a number below its minimum, or random windows that would cross documents.
        ValueError: conflicting window, stride, random_length and shift.
    """

    batch_size: int = 32
    window: int = 128
    stride: int | None = None
    random_length: bool = False
    shift: bool | None = None
    concatenate: bool = True
    validation_streams: int = 32
    random_windows: Mapping[str, int] | None = None
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.batch_size, self.validation_streams) < 1:
            raise DataError(
                f"batch_size and validation_streams must be at least 1, got {self.batch_size} and "
                f"{self.validation_streams}"
            )
        given = self.random_windows
        if given is not None and (set(given) != {"length", "count", "batch_size"} or min(given.values()) < 1):
            raise DataError(f"random_windows takes length, count and batch_size of at least 1, got {dict(given)}")
        if given is not None and not self.concatenate:
            raise DataError("random_windows cross documents, so they need concatenate=true; set random_windows=null")
        check_workers(self.workers)
        self.training_plan([], ranks=1)  # checks the combination before any text is read

    def training_plan(self, lengths: ArrayLike, ranks: int, planned_ranks: int | None = None) -> StreamPlan:
        """Returns the plan of training windows.

        Args:
            lengths: (documents,) number of tokens of each document.
            ranks: number of processes.
            planned_ranks: number of processes with `batch_size` streams each; None for `ranks`.
        """
        return StreamPlan(
            lengths,
            rows=self.batch_size * (planned_ranks or ranks),
            ranks=ranks,
            window=self.window,
            stride=self.stride,
            concatenate=self.concatenate,
            random_length=self.random_length,
            shift=not self.random_length if self.shift is None else self.shift,
            seed=self.seed,
        )

    def scoring_plan(self, lengths: ArrayLike, rows: int, ranks: int) -> StreamPlan:
        """Returns the plan that reads a text once in at most `validation_streams` rows."""
        rows = min(rows, self.validation_streams)
        return StreamPlan(lengths, rows=rows, ranks=ranks, window=self.window, concatenate=self.concatenate)


def check_workers(workers: int) -> None:
    """Checks a number of worker processes.

    Raises:
        DataError: it is below 0.
    """
    if workers < 0:
        raise DataError(f"workers={workers}: must be 0, to read in the training process, or a number of processes")
