"""Generated data: a problem draws each example from a random generator of its own, so that nothing is stored."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.processing.frames import SeriesScaler
from unrolled.processing.labels import LabelEncoder, LabelSequenceEncoder
from unrolled.processing.numbers import Scaler
from unrolled.processing.transform import Processor, Transform
from unrolled.training.configuration.flat import flat_options
from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.bucketed import BucketData, Examples
from unrolled.training.data.buckets import BatchSpec
from unrolled.training.data.options import Batching

Draw = np.random.Generator
Inputs = Literal["symbol", "frame"]
TargetType = Literal["class", "labels", "number"]

_ATTEMPTS = 1000  # draws of an example that must not be among those of training


class Example(NamedTuple):
    """A sequence and what to predict of it.

    Attributes:
        inputs: (time,) int64 ids of symbols, or (time, features) float32.
        targets: (predictions,) int64 classes, or (predictions, outputs) float32: labels as 0 and 1, or numbers.
        steps: (predictions,) int64, the steps to predict at; None for all of them.
        truth: (predictions, outputs) float32, what outputs are scored with if that is not the target, such as all legal
            next symbols beside the one that came.
    """

    inputs: NDArray[np.generic]
    targets: NDArray[np.generic]
    steps: NDArray[np.int64] | None = None
    truth: NDArray[np.float32] | None = None


class Criterion(NamedTuple):
    """When a prediction is right and a problem is solved.

    Attributes:
        tolerance: an output is right if its absolute error is below; None: a class is right if it is the most probable.
        max_wrong: the problem is solved if at most this share of the sequences is wrong …
        max_error: … and the mean absolute error of the outputs is below.
    """

    tolerance: float | None = None
    max_wrong: float = 0.0
    max_error: float = float("inf")


class Problem(ABC):
    """A problem whose examples are drawn at random.

    A subclass is a frozen dataclass with the options of the problem, and defines `names`, `outputs` and `draw`.

    Attributes:
        inputs: whether an input is a symbol or a frame of numbers.
        target_type: whether a target is a class, several labels, or numbers.
    """

    inputs: ClassVar[Inputs] = "symbol"
    target_type: ClassVar[TargetType] = "class"

    @property
    def criterion(self) -> Criterion:
        """When a prediction is right and the problem is solved."""
        return Criterion()

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """Names of the input symbols in the order of their ids, or of the features of a frame."""

    @property
    @abstractmethod
    def outputs(self) -> Sequence[str]:
        """Names of the outputs: classes, labels or numbers."""

    @abstractmethod
    def draw(self, random: Draw, split: str, index: int) -> Example:
        """Draws an example.

        Args:
            random: the only source of random numbers.
            split: name of the split; the test may have longer sequences than training.
            index: number of the example within its split, for problems that enumerate them.
        """

    def size(self, split: str, wanted: int) -> int:
        """Returns the number of examples of a split: the wanted one, unless the problem enumerates them."""
        return wanted

    def right(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Returns (…) bool, which predictions are right.

        Args:
            outputs: (…, outputs) probabilities or numbers.
            truth: (…, outputs), see `Example`; undefined results in the padding are ignored.
        """
        tolerance = self.criterion.tolerance
        if tolerance is None:
            return outputs.argmax(-1) == truth.argmax(-1)
        return ((outputs - truth).abs() < tolerance).all(-1)


class GeneratedBatch(NamedTuple):
    """A batch of generated examples."""

    source: Tensor  # (batch, time) int64 or (batch, time, features), 0 in the padding
    lengths: Tensor  # (batch,)
    positions: Tensor | None  # (batch, predictions) steps to predict at; None for all steps
    predictions: Tensor  # (batch,) number of predictions of each example
    targets: Tensor  # (batch, predictions) int64 or (batch, predictions, outputs), 0 in the padding
    truth: Tensor  # (batch, predictions, outputs), 0 in the padding; empty in training
    examples: Tensor  # (batch,) numbers of the examples within their split
    scale: float


class GeneratedData(BucketData[GeneratedBatch]):
    """Examples of a problem. Each depends on the seed, its split and its number alone.

    Args:
        problem: the problem.
        inputs: whether an input is a symbol or a frame; selects the embedding of the network.
        target_type: whether a target is a class, labels or numbers; selects the head of the network.
        train_size: number of training examples, each of which is read once in an epoch.
        validation_size: number of examples of a validation.
        test_size: number of examples of the test.
        distinct: draw an example of validation and test again while it is one of training.
        score_train: score the training examples in validation and test, too.
        batching: batches of similar length. Its fields can be arguments, too.

    Raises:
        DataError: invalid options.
    """

    @flat_options
    def __init__(
        self,
        problem: Problem,
        inputs: str = "symbol",
        target_type: str = "class",
        train_size: int = 10_000,
        validation_size: int = 1000,
        test_size: int = 1000,
        distinct: bool = False,
        score_train: bool = False,
        batching: Batching = Batching(batch_size=32),
    ) -> None:
        super().__init__()
        wanted = {"inputs": (inputs, problem.inputs), "target_type": (target_type, problem.target_type)}
        for name, (given, own) in wanted.items():
            if given != own:
                raise DataError(f"{name}={given}: {type(problem).__name__} needs {name}={own}")
        sizes: dict[str, int] = dict(zip(SPLITS, (train_size, validation_size, test_size), strict=True))
        wrong = next((split for split, size in sizes.items() if size < (split == "train")), None)
        if wrong is not None:
            least = "1" if wrong == "train" else "0 (no such split)"
            raise DataError(f"{wrong}_size={sizes[wrong]}: expected {least} or more")
        self.problem, self.batching = problem, batching
        self._sizes = {split: problem.size(split, size) if size else 0 for split, size in sizes.items()}
        self._distinct, self._score_train = distinct, score_train
        self._attempts: dict[tuple[str, int], int] = {}  # of examples that were drawn again
        self._shapes: dict[str, list[tuple[int, int]]] = {}  # length and number of predictions of each example

    def prepare(self) -> None:
        """See `SequenceData.prepare`."""
        if self._shapes:
            return
        seen: set[bytes] = set()
        shapes: dict[str, list[tuple[int, int]]] = {}
        for split, size in self._sizes.items():
            shapes[split] = []
            for index in range(size):
                example = self.drawn(split, index)
                if self._distinct and split == "train":
                    seen.add(example.inputs.tobytes())
                elif self._distinct:
                    example = self._unseen(split, index, seen)
                shapes[split].append((len(example.inputs), len(example.targets)))
        self._shapes = shapes

    def _unseen(self, split: str, index: int, seen: set[bytes]) -> Example:
        for attempt in range(_ATTEMPTS):
            self._attempts[split, index] = attempt
            example = self.drawn(split, index)
            if example.inputs.tobytes() not in seen:
                return example
        raise DataError(
            f"{_ATTEMPTS} examples of {self.problem} in a row are among the {len(seen):,} of training; set "
            "data.distinct=false, or a smaller data.train_size"
        )

    def drawn(self, split: str, index: int) -> Example:
        """Draws an example of a split; numbers from the split's size on are those of training (`score_train`)."""
        if index >= self._sizes[split]:
            split, index = "train", index - self._sizes[split]
        place = (self.batching.seed, SPLITS.index(split), index, self._attempts.get((split, index), 0))
        return self.problem.draw(np.random.default_rng(place), split, index)

    def sizes(self) -> dict[str, int]:
        """See `SequenceData.sizes`."""
        return {"inputs": len(self.problem.names), "outputs": len(self.problem.outputs)}

    def processor(self) -> Processor:
        """See `SequenceData.processor`."""
        names, outputs = list(self.problem.names), list(self.problem.outputs)
        if self.problem.inputs == "frame":
            source: Transform = SeriesScaler(names, *_unscaled(names))
        else:
            source = LabelSequenceEncoder(names)
        if self.problem.target_type == "number":
            target: Transform = Scaler(outputs, *_unscaled(outputs))
        elif self.problem.target_type == "labels":
            target = LabelEncoder(outputs, multiple=True)
        else:
            target = LabelSequenceEncoder(outputs)
        return Processor(source, target)

    def splits(self) -> tuple[str, ...]:
        """See `SequenceData.splits`."""
        return tuple(split for split in SPLITS if self._sizes[split])

    def describe(self) -> str:
        """See `SequenceData.describe`."""
        counts = ", ".join(f"{split} {self._sizes[split]:,}" for split in self.splits())
        also = " and the training sequences" if self._score_train else ""
        return f"{counts} sequences of {self.problem}; scored: {self.evaluated_split}{also}"

    def example(self, folder: Path) -> str | None:
        """See `SequenceData.example`: the symbols of the first scored sequence."""
        if self.problem.inputs == "frame":
            return None
        ids: list[int] = self.drawn(self.evaluated_split, 0).inputs.tolist()
        return " ".join(self.problem.names[index] for index in ids)

    def fingerprint(self) -> str:
        """See `SequenceData.fingerprint`."""
        content = f"{self.problem} {self._sizes['train']} {self.batching.seed}"
        return hashlib.sha256(content.encode()).hexdigest()

    def examples(self, split: str, *, scored: bool) -> Examples:
        """See `BucketData.examples`."""
        shapes = self._shapes[split] + (self._shapes["train"] if scored and self._score_train else [])
        return Examples([[length] for length, _ in shapes], [predictions for _, predictions in shapes])

    def batch(self, split: str, spec: BatchSpec, scale: float, *, scored: bool) -> GeneratedBatch:
        """See `BucketData.batch`."""
        drawn = [self.drawn(split, int(index)) for index in spec.rows.tolist()]
        steps = [torch.as_tensor(example.steps) for example in drawn if example.steps is not None]
        return GeneratedBatch(
            source=_padded([example.inputs for example in drawn]),
            lengths=torch.tensor([len(example.inputs) for example in drawn]),
            positions=pad_sequence(steps, batch_first=True) if steps else None,
            predictions=torch.tensor([len(example.targets) for example in drawn]),
            targets=_padded([example.targets for example in drawn]),
            truth=_padded([self._truth(example) for example in drawn]) if scored else torch.empty(0),
            examples=torch.as_tensor(spec.rows),
            scale=scale,
        )

    def _truth(self, example: Example) -> NDArray[np.generic]:
        if example.truth is not None:
            return example.truth
        if self.problem.target_type != "class":
            return example.targets
        return np.eye(len(self.problem.outputs), dtype=np.float32)[example.targets.astype(np.int64)]


def _unscaled(names: Sequence[str]) -> tuple[list[float], list[float]]:
    """Returns centers and scales that change nothing."""
    return [0.0] * len(names), [1.0] * len(names)


def _padded(rows: Sequence[NDArray[np.generic]]) -> Tensor:
    return pad_sequence([torch.from_numpy(np.ascontiguousarray(row)) for row in rows], batch_first=True)
