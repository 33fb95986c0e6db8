"""Targets of a classifier, labels or numbers, together with the codec or extractor of its sources."""

import math
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from unrolled.processing.text.base import Codec
from unrolled.wording import article, counted


class _TargetCodec(Codec):
    """Base class: encodes sources with `source`. Subclasses decode predictions."""

    start = -1  # there is no start symbol
    unknown = None

    def __init__(self, source: Any, lowercase: bool, max_length: int | None) -> None:
        if not callable(getattr(source, "to_dict", None)):
            raise ValueError(
                f"source is {article(type(source).__name__)}, expected a codec or an extractor, which have to_dict()"
            )
        self.source, self.lowercase, self.max_length = source, lowercase, max_length

    def encode(self, text: str) -> list[int]:
        """Return the ids of a source text, truncated to `max_length`."""
        return super().encode(text)[: self.max_length]

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        if not isinstance(self.source, Codec):
            raise ValueError(
                f"the sources of this network are not text; they are read by {article(type(self.source).__name__)}"
            )
        return self.source.encode_pieces((piece.lower() for piece in pieces) if self.lowercase else pieces)


class LabelCodec(_TargetCodec):
    """Maps labels to ids, their positions in `labels`.

    Args:
        labels: the labels, without duplicates.
        source: codec or extractor of the sources: a text codec, or an extractor such as `AudioFeatures`.
        multiple: whether a source may have any number of labels instead of exactly one.
        lowercase: whether source texts are converted to lower case.
        max_length: maximum number of steps of a source text, which is truncated; None for no limit.

    Raises:
        ValueError: no labels, fewer than two without `multiple`, or duplicates.
    """

    unit = "label"

    def __init__(
        self,
        labels: Sequence[str],
        source: Any,
        multiple: bool = False,
        lowercase: bool = False,
        max_length: int | None = None,
    ) -> None:
        super().__init__(source, lowercase, max_length)
        self.labels, self.multiple = list(labels), multiple
        self.size = len(self.labels)
        self._ids = {label: index for index, label in enumerate(self.labels)}
        if self.size < (1 if multiple else 2) or len(self._ids) < self.size:
            raise ValueError(f"labels={self.labels[:20]}: expected two or more, without duplicates")

    def index(self, label: str) -> int:
        """Return the id of a label.

        Raises:
            ValueError: an unknown label.
        """
        if label not in self._ids:
            near = get_close_matches(label, self.labels, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            known = ", ".join(self.labels[:20]) + (", …" if self.size > 20 else "")
            raise ValueError(f"label {label!r} is not among the labels of training{hint} They are {known}")
        return self._ids[label]

    def decode(self, ids: Iterable[int]) -> str:
        return ", ".join(self.labels[index] for index in self._checked(ids))

    def to_dict(self) -> dict[str, Any]:
        return {
            "_target_": "unrolled.LabelCodec",
            "labels": list(self.labels),
            "source": self.source.to_dict(),
            "multiple": self.multiple,
            "lowercase": self.lowercase,
            "max_length": self.max_length,
        }


class NumberCodec(_TargetCodec):
    """Normalizes the numbers that a network predicts: (number − center) / scale.

    Args:
        names: names of the numbers.
        centers: the value subtracted from each number.
        scales: the divisor of each number, above 0.
        source: codec or extractor of the sources; see `LabelCodec`.
        bounded: whether the numbers are between 0 and 1 and are predicted as probabilities, without center and scale.
        lowercase: whether source texts are converted to lower case.
        max_length: maximum number of steps of a source text, which is truncated; None for no limit.

    Raises:
        ValueError: different numbers of names, centers and scales, a scale that isn't above 0, bounded numbers with
            center or scale.
    """

    unit = "number"

    def __init__(
        self,
        names: Sequence[str],
        centers: Sequence[float],
        scales: Sequence[float],
        source: Any,
        bounded: bool = False,
        lowercase: bool = False,
        max_length: int | None = None,
    ) -> None:
        super().__init__(source, lowercase, max_length)
        self.names, self.centers, self.scales = list(names), list(centers), list(scales)
        self.bounded = bounded
        self.size = len(self.names)
        if not self.size == len(self.centers) == len(self.scales) > 0 or not all(
            0 < scale < float("inf") for scale in self.scales
        ):
            raise ValueError(
                f"{counted(self.size, 'number')}, centers={self.centers}, scales={self.scales}: expected one of each "
                "per number, and scales above 0"
            )
        if bounded and (any(self.centers) or any(scale != 1 for scale in self.scales)):
            raise ValueError("bounded numbers are probabilities: centers must be 0 and scales 1")

    def normalized(self, numbers: Sequence[float]) -> list[float]:
        """Return normalized numbers, computed in double precision."""
        return [(n - center) / scale for n, center, scale in zip(numbers, self.centers, self.scales, strict=True)]

    def written(self, numbers: Sequence[float], digits: int = 6) -> list[str]:
        """Format numbers in their own units, with `digits` significant digits relative to the scale."""
        kept = (
            min(17, digits + max(0, math.floor(math.log10(max(abs(center) / scale, 1)))))
            for center, scale in zip(self.centers, self.scales, strict=True)
        )
        return [f"{number:.{count}g}" for number, count in zip(numbers, kept, strict=True)]

    def decode(self, ids: Iterable[int]) -> str:
        raise ValueError("this network predicts numbers, which have no ids")

    def to_dict(self) -> dict[str, Any]:
        return {
            "_target_": "unrolled.NumberCodec",
            "names": list(self.names),
            "centers": list(self.centers),
            "scales": list(self.scales),
            "source": self.source.to_dict(),
            "bounded": self.bounded,
            "lowercase": self.lowercase,
            "max_length": self.max_length,
        }
