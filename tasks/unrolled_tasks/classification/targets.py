"""Labels and numbers: as examples have them, as networks learn them, and the codec between."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.processing.labels import LabelCodec, NumberCodec
from unrolled.training.data.base import DataError
from unrolled.training.data.files import nearest
from unrolled_tasks.classification.examples import Example, label_counts
from unrolled_tasks.classification.modalities import Modality

TARGETS = ("label", "labels", "number", "share")


class TargetSpec:
    """How the answers of examples are understood; see `ClassificationData` for the arguments."""

    def __init__(
        self,
        kind: str,
        target: str | Sequence[str],
        *,
        separator: str = ",",
        names: Mapping[Any, str] | None = None,
        scaled: bool = True,
        min_examples: int = 2,
    ) -> None:
        if kind not in TARGETS:
            raise DataError(f"target_type={kind!r} is one of {', '.join(TARGETS)}")
        self.kind, self._target, self._separator, self._scaled = kind, target, separator, scaled
        self._names = {str(written): str(name) for written, name in (names or {}).items()}
        self._least = min_examples

    def options(self) -> dict[str, Any]:
        """How answers are understood, as plain data."""
        return {
            "kind": self.kind,
            "target": self._target,
            "separator": self._separator,
            "names": self._names,
            "scaled": self._scaled,
            "min_examples": self._least,
        }

    def fit(self, examples: Sequence[Example], sources: Sequence[Any], modality: Modality) -> LabelCodec | NumberCodec:
        """The codec for the training split's examples and their opened sources, with what reads them.

        Raises:
            DataError: answers that nothing can be learned from.
        """
        if not examples:
            raise DataError("there is no training example; data.split_fractions or data.files has to leave some")
        text: dict[str, Any] = {
            name: getattr(modality, name) for name in ("lowercase", "max_length") if hasattr(modality, name)
        }
        if self.kind in ("number", "share"):
            numbers = torch.tensor([self.numbers(example) for example in examples], dtype=torch.float64)
            return self._number_codec(numbers, modality.fit(sources), text)
        self._check_names(examples)
        counts = label_counts(self.labels(example) for example in examples)
        rare = [label for label, count in counts.items() if count < self._least]
        if rare:
            raise DataError(
                f"label {rare[0]!r} has {counts[rare[0]]} training example, one of {len(rare)} labels with fewer than "
                f"min_examples={self._least}: add some, leave them out, or take data.min_examples=1"
            )
        if len(counts) < 2 and self.kind == "label":
            raise DataError(
                f"all training examples have the label {next(iter(counts))!r}: there is nothing to tell apart"
            )
        labels = sorted(counts, key=_in_order)
        extractor = modality.fit(sources)
        return LabelCodec(labels, extractor, multiple=self.kind == "labels", **text)

    def _check_names(self, examples: Sequence[Example]) -> None:
        """Refuses a name for what no training example has, which would leave another label without its name."""
        names, self._names = self._names, {}
        written = {label for example in examples for label in self.labels(example)}
        self._names = names
        for label in names:
            if label not in written:
                raise DataError(
                    f"data.names: no training example has the label {label!r}{nearest(label, written)}; "
                    f"there is {', '.join(sorted(written)[:20])}"
                )

    def _number_codec(self, numbers: Tensor, extractor: Any, text: Mapping[str, Any]) -> NumberCodec:
        answer = self._target
        names = [answer] if isinstance(answer, str) else list(answer)
        if self.kind == "share":
            ones = [1.0] * len(names)
            return NumberCodec(names, [0.0] * len(names), ones, extractor, bounded=True, **text)
        if not self._scaled:
            return NumberCodec(names, [0.0] * len(names), [1.0] * len(names), extractor, **text)
        deviations = numbers.std(0, unbiased=False)
        same = (numbers == numbers[0]).all(0).tolist()
        constant = [name for name, one in zip(names, same, strict=True) if one]
        if constant:
            raise DataError(f"{constant[0]} is the same number in all training examples: there is nothing to predict")
        if not bool(deviations.isfinite().all()):
            raise DataError(
                f"{', '.join(names)}: numbers up to {float(numbers.abs().max()):g} are too large to be learned"
            )
        return NumberCodec(names, numbers.mean(0).tolist(), deviations.tolist(), extractor, **text)

    def target(self, example: Example, codec: LabelCodec | NumberCodec) -> Tensor:
        """What the network shall say about an example: () int64, or (outputs,) float32, numbers normalized.

        Raises:
            ValueError: a label that training never saw, or no number.
        """
        if isinstance(codec, NumberCodec):
            numbers = torch.tensor(codec.normalized(self.numbers(example)))
            if not bool(numbers.isfinite().all()):
                raise DataError(f"{example.place}: {example.target!r} is too far from the training split's numbers")
            return numbers
        ids = [codec.index(label) for label in self.labels(example)]
        if not codec.multiple:
            return torch.tensor(ids[0])
        return torch.zeros(codec.size).index_fill(0, torch.tensor(ids, dtype=torch.int64), 1.0)

    def labels(self, example: Example) -> list[str]:
        """The labels of an example by their names."""
        answer = example.target
        if self.kind == "labels":
            found = answer.split(self._separator) if isinstance(answer, str) else list(answer or ())
            labels = [str(label).strip() for label in found if str(label).strip()]
        elif isinstance(answer, (list, tuple, dict)):
            raise DataError(
                f"{example.place}: {answer!r:.80} is no label; data.target_type=labels takes several of them"
            )
        else:
            labels = [str(answer).strip()]
        return [self._names.get(label, label) for label in labels]

    def numbers(self, example: Example) -> list[float]:
        """The numbers of an example, in their own units.

        Raises:
            DataError: no number, or one that cannot be.
        """
        answers = example.target if isinstance(example.target, list) else [example.target]
        try:
            numbers = [float(answer) for answer in answers]
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"{example.place}: {example.target!r:.80} is no number; data.target_type=label for classes"
            ) from None
        if not all(math.isfinite(number) for number in numbers):
            raise DataError(f"{example.place}: {example.target!r} is not finite")
        if self.kind == "share" and not all(0 <= number <= 1 for number in numbers):
            raise DataError(
                f"{example.place}: {example.target!r} is not from 0 to 1; data.target_type=number takes any"
            )
        return numbers


def _in_order(label: str) -> tuple[bool, float, str]:
    """Numbers by their size, in front of words by their spelling."""
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label
