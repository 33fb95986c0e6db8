"""Options of classification, as dataclasses, one a concern."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unrolled import LabelEncoder, Scaler


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """The loss of labels.

    Attributes:
        label_smoothing: share of the target that is spread over all labels.
        class_weights: weight of each label in training, by name; "balanced" for weights inversely proportional to the
            labels' counts; None for equal weights.

    Raises:
        ValueError: a share outside [0, 1), other weights.
    """

    label_smoothing: float = 0.0
    class_weights: Mapping[Any, float] | str | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing={self.label_smoothing} must be in [0, 1)")
        if isinstance(self.class_weights, str) and self.class_weights != "balanced":
            raise ValueError(f"class_weights={self.class_weights!r} must be balanced, a weight for each label, or null")

    def by_label(self, target: LabelEncoder | Scaler) -> Mapping[str, float] | str | None:
        """Returns the weight of each label, "balanced", or None.

        Raises:
            ValueError: an unknown label, a negative weight, or targets that are numbers.
        """
        if isinstance(target, Scaler):
            if self.label_smoothing or self.class_weights:
                raise ValueError("label_smoothing and class_weights are for labels; this network predicts numbers")
            return None
        if not isinstance(self.class_weights, Mapping):
            return self.class_weights
        weights = {str(label): float(weight) for label, weight in self.class_weights.items()}
        for label in weights:
            target.index(label)  # raises for an unknown label
        if not all(0 <= weight < float("inf") for weight in weights.values()):
            raise ValueError(f"class_weights={weights}: weights must be 0 or more and finite; or set balanced")
        return dict.fromkeys(target.labels, 1.0) | weights


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What evaluations show.

    Attributes:
        prefix_fractions: fractions of each test sequence after which the prediction is scored too; empty for none.
        num_samples: number of validation examples shown after every validation.
        num_mistakes: maximum number of wrong test predictions listed, the most confident first.
        linear_baseline: fit a linear model to the training examples at the end of a run, and show its metrics beside
            those of the network; see `baseline.linear_baseline`.

    Raises:
        ValueError: a fraction outside (0, 1], a negative number.
    """

    prefix_fractions: Sequence[float] = ()
    num_samples: int = 6
    num_mistakes: int = 30
    linear_baseline: bool = True

    def __post_init__(self) -> None:
        if any(not 0 < share <= 1 for share in self.prefix_fractions):
            raise ValueError(f"prefix_fractions={list(self.prefix_fractions)}: must be above 0 and at most 1")
        if min(self.num_samples, self.num_mistakes) < 0:
            raise ValueError(f"num_samples={self.num_samples} and num_mistakes={self.num_mistakes} must be 0 or more")
