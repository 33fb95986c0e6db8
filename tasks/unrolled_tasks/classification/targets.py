"""Targets: conversion of labels and numbers of examples to targets of a loss, and the fitting of their transform."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.processing.labels import LabelEncoder
from unrolled.processing.numbers import Scaler
from unrolled.training.data.base import DataError
from unrolled.training.data.examples import Example, label_counts
from unrolled.training.data.files import did_you_mean
from unrolled.wording import counted

TARGETS = ("label", "labels", "number", "share")


class TargetSpec:
    """Converts the targets of examples; see `ClassificationData` for the arguments."""

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
            raise DataError(f"target_type={kind!r} must be one of {', '.join(TARGETS)}")
        self.kind, self._target, self._separator, self._scaled = kind, target, separator, scaled
        self._names = {str(label): str(name) for label, name in (names or {}).items()}
        self._min_examples = min_examples

    def options(self) -> dict[str, Any]:
        """Returns the options as plain data."""
        return {
            "kind": self.kind,
            "target": self._target,
            "separator": self._separator,
            "names": self._names,
            "scaled": self._scaled,
            "min_examples": self._min_examples,
        }

    def fit(self, examples: Sequence[Example]) -> LabelEncoder | Scaler:
        """Fits the transform of targets to the examples of the training split.

        Raises:
            DataError: targets that cannot be learned.
        """
        if not examples:
            raise DataError("there are no training examples; change data.split_fractions or data.files")
        if self.kind in ("number", "share"):
            numbers = torch.tensor([self.numbers(example) for example in examples], dtype=torch.float64)
            return self._scaler(numbers)
        self._check_names(examples)
        counts = label_counts(self.labels(example) for example in examples)
        rare = [label for label, count in counts.items() if count < self._min_examples]
        if rare:
            raise DataError(
                f"label {rare[0]!r} has {counted(counts[rare[0]], 'training example')}, one of {len(rare)} labels with "
                f"fewer than min_examples={self._min_examples}: add examples, remove the label, or set "
                "data.min_examples=1"
            )
        if len(counts) < 2 and self.kind == "label":
            raise DataError(f"all training examples have the label {next(iter(counts))!r}: there must be two or more")
        labels = sorted(counts, key=_in_order)
        return LabelEncoder(labels, multiple=self.kind == "labels")

    def _check_names(self, examples: Sequence[Example]) -> None:
        """Checks that all named labels occur in training examples, since a misspelt one would be ignored."""
        names, self._names = self._names, {}
        labels = {label for example in examples for label in self.labels(example)}
        self._names = names
        for label in names:
            if label not in labels:
                raise DataError(
                    f"data.names: no training example has the label {label!r}{did_you_mean(label, labels)}; "
                    f"the labels are {', '.join(sorted(labels)[:20])}"
                )

    def _scaler(self, numbers: Tensor) -> Scaler:
        names = [self._target] if isinstance(self._target, str) else list(self._target)
        if self.kind == "share":
            return Scaler(names, [0.0] * len(names), [1.0] * len(names), bounded=True)
        if not self._scaled:
            return Scaler(names, [0.0] * len(names), [1.0] * len(names))
        deviations = numbers.std(0, unbiased=False)
        same = (numbers == numbers[0]).all(0).tolist()
        constant = [name for name, one in zip(names, same, strict=True) if one]
        if constant:
            raise DataError(f"{constant[0]} is equal in all training examples: there is nothing to predict")
        if not bool(deviations.isfinite().all()):
            raise DataError(
                f"{', '.join(names)}: numbers up to {float(numbers.abs().max()):g} are too large for training"
            )
        return Scaler(names, numbers.mean(0).tolist(), deviations.tolist())

    def target(self, example: Example, transform: LabelEncoder | Scaler) -> Tensor:
        """Returns the target of an example: () int64, or (outputs,) float32 of standardized numbers.

        Raises:
            ValueError: a label that does not occur in training, or not a number.
        """
        if isinstance(transform, Scaler):
            numbers = torch.tensor(transform.encode(self.numbers(example)))
            if not bool(numbers.isfinite().all()):
                raise DataError(f"{example.place}: {example.target!r} is too far from the training split's numbers")
            return numbers
        labels = self.labels(example)
        encoded = transform.encode(labels if transform.multiple else labels[0])
        return transform.collate([encoded])[0][0]

    def labels(self, example: Example) -> list[str]:
        """Returns the names of the labels of an example."""
        target = example.target
        if self.kind == "labels":
            found = target.split(self._separator) if isinstance(target, str) else list(target or ())
            labels = [str(label).strip() for label in found if str(label).strip()]
        elif isinstance(target, (list, tuple, dict)):
            raise DataError(
                f"{example.place}: {target!r:.80} is not a label; data.target_type=labels accepts several labels"
            )
        else:
            labels = [str(target).strip()]
        return [self._names.get(label, label) for label in labels]

    def numbers(self, example: Example) -> list[float]:
        """Returns the numbers of an example, in their original units.

        Raises:
            DataError: not a number, not finite, or out of range.
        """
        targets = example.target if isinstance(example.target, list) else [example.target]
        try:
            numbers = [float(target) for target in targets]
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"{example.place}: {example.target!r:.80} is not a number; set data.target_type=label for classes"
            ) from None
        if not all(math.isfinite(number) for number in numbers):
            raise DataError(f"{example.place}: {example.target!r} is not finite")
        if self.kind == "share" and not all(0 <= number <= 1 for number in numbers):
            raise DataError(
                f"{example.place}: {example.target!r} is not from 0 to 1; data.target_type=number accepts any number"
            )
        return numbers


def _in_order(label: str) -> tuple[bool, float, str]:
    """Sort key: numbers by value, then other labels alphabetically."""
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label
