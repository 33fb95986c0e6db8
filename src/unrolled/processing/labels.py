"""What a classifier answers, as plain data: labels or numbers, beside how its sources are read."""

import math
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from unrolled.processing.text.base import Codec
from unrolled.wording import article, counted


class _AnswerCodec(Codec):
    """Reads sources with `source`; what is answered, a subclass knows."""

    start = -1  # nothing is written before an answer
    unknown = None

    def __init__(self, source: Any, lowercase: bool, max_length: int | None) -> None:
        if not callable(getattr(source, "to_dict", None)):
            raise ValueError(
                f"source is {article(type(source).__name__)}, expected a codec or an extractor, which have to_dict()"
            )
        self.source, self.lowercase, self.max_length = source, lowercase, max_length

    def encode(self, text: str) -> list[int]:
        """The ids of a text that is to be answered, cut behind `max_length` of them."""
        return super().encode(text)[: self.max_length]

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        if not isinstance(self.source, Codec):
            raise ValueError(f"this network reads no text, but what {article(type(self.source).__name__)} reads")
        return self.source.encode_pieces((piece.lower() for piece in pieces) if self.lowercase else pieces)


class LabelCodec(_AnswerCodec):
    """Classes by their names; ids are their places.

    Args:
        labels: the classes, each once.
        source: how what is classified is read: a text codec or an extractor such as `AudioFeatures`.
        multiple: a source may have any number of labels, none included, instead of exactly one.
        lowercase: text is read in lower case.
        max_length: steps of a text that are read; None for all.

    Raises:
        ValueError: fewer than two labels of which one holds, no label at all, or one given twice.
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
            raise ValueError(f"labels={self.labels[:20]}: two or more, each once")

    def index(self, label: str) -> int:
        """The id of a label.

        Raises:
            ValueError: a label that training never saw.
        """
        if label not in self._ids:
            near = get_close_matches(label, self.labels, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            shown = ", ".join(self.labels[:20]) + (", …" if self.size > 20 else "")
            raise ValueError(f"label {label!r} is none that training saw{hint} It saw {shown}")
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


class NumberCodec(_AnswerCodec):
    """Numbers, scaled for the network: (number − center) / scale, as fitted on the training split.

    Args:
        names: what each number is called.
        centers: subtracted.
        scales: divided by, above 0.
        source: how what is looked at is read; see `LabelCodec`.
        bounded: the numbers lie from 0 to 1 and are predicted as probabilities, without center and scale.
        lowercase: text is read in lower case.
        max_length: steps of a text that are read; None for all.

    Raises:
        ValueError: unequal counts, a scale that isn't above 0, bounded numbers that are scaled.
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
                f"{counted(self.size, 'number')}, centers={self.centers}, scales={self.scales}: one each, above 0"
            )
        if bounded and (any(self.centers) or any(scale != 1 for scale in self.scales)):
            raise ValueError("bounded numbers are probabilities: centers are 0 and scales are 1")

    def normalized(self, numbers: Sequence[float]) -> list[float]:
        """What a network learns instead of numbers in their own units, computed in Python's doubles."""
        return [(n - center) / scale for n, center, scale in zip(numbers, self.centers, self.scales, strict=True)]

    def written(self, numbers: Sequence[float], digits: int = 6) -> list[str]:
        """Numbers in their own units as text, with so many digits of what varies: more of them far from zero."""
        kept = (
            min(17, digits + max(0, math.floor(math.log10(max(abs(center) / scale, 1)))))
            for center, scale in zip(self.centers, self.scales, strict=True)
        )
        return [f"{number:.{count}g}" for number, count in zip(numbers, kept, strict=True)]

    def decode(self, ids: Iterable[int]) -> str:
        raise ValueError("this network answers with numbers, which have no ids")

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
