"""Labels as ids and back, as plain data without torch."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from unrolled.processing.transform import Transform

if TYPE_CHECKING:
    from torch import Tensor


class LabelEncoder(Transform):
    """Converts labels to ids, which are their positions in the list of labels, and back.

    Args:
        labels: the labels, without duplicates.
        multiple: whether a value is any number of labels, including none, instead of exactly one.

    Raises:
        ValueError: fewer than two labels, or none with `multiple`; duplicates.
    """

    def __init__(self, labels: Sequence[str], multiple: bool = False) -> None:
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
            listed = ", ".join(self.labels[:20]) + (", …" if self.size > 20 else "")
            raise ValueError(f"label {label!r} is not among the labels of training{hint} They are {listed}")
        return self._ids[label]

    def encode(self, value: str | Sequence[str]) -> int | list[int]:
        """Return the id of a label; with `multiple` the ids of several labels, in ascending order."""
        if not self.multiple:
            if not isinstance(value, str):
                raise ValueError(f"{value!r:.80} is not a label")
            return self.index(value)
        return sorted({self.index(label) for label in ([value] if isinstance(value, str) else value)})

    def decode(self, encoded: Any, given: Any = None) -> str | list[str]:
        """Return the label of an id; with `multiple` the labels of several ids.

        Raises:
            ValueError: an id outside 0 … size − 1.
        """
        ids = [int(index) for index in encoded] if self.multiple else [int(encoded)]
        wrong = next((index for index in ids if not 0 <= index < self.size), None)
        if wrong is not None:
            raise ValueError(f"id {wrong} is outside the labels' 0 … {self.size - 1}")
        return [self.labels[index] for index in ids] if self.multiple else self.labels[ids[0]]

    def normalize(self, value: str | Sequence[str]) -> str | list[str]:
        """Return a label as it is; with `multiple` the distinct labels in the order of their ids."""
        if not self.multiple:
            return str(value)
        given = {value} if isinstance(value, str) else set(value)
        return [label for label in self.labels if label in given]

    def collate(self, encoded: Sequence[Any]) -> "tuple[Tensor, Tensor]":
        """Return ids (batch,) int64; with `multiple` 0 or 1 for each label, (batch, size) in float32."""
        import torch  # label encoders themselves do without

        ones = torch.ones(len(encoded), dtype=torch.int64)
        if not self.multiple:
            return torch.tensor([int(index) for index in encoded], dtype=torch.int64), ones
        rows = [
            torch.zeros(self.size).index_fill(0, torch.tensor(list(ids), dtype=torch.int64), 1.0) for ids in encoded
        ]
        return torch.stack(rows) if rows else torch.zeros(0, self.size), ones

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": "unrolled.LabelEncoder", "labels": list(self.labels), "multiple": self.multiple}


class LabelSequenceEncoder(LabelEncoder):
    """Converts a sequence of labels, one for each step, to a sequence of ids, and back.

    Args:
        labels: the labels, without duplicates.

    Raises:
        ValueError: fewer than two labels, or duplicates.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)

    def encode(self, value: Sequence[str]) -> list[int]:
        """Return the ids of labels."""
        if isinstance(value, str):
            raise ValueError(f"{value!r:.80} is a text, expected a sequence of labels, one for each step")
        return [self.index(label) for label in value]

    def decode(self, encoded: Any, given: Any = None) -> list[str]:
        """Return the labels of ids."""
        return [str(super(LabelSequenceEncoder, self).decode(index)) for index in encoded]

    def normalize(self, value: Sequence[str]) -> list[str]:
        """Return the labels as they are."""
        return [str(label) for label in value]

    def collate(self, encoded: Sequence[Any]) -> "tuple[Tensor, Tensor]":
        """Return ids (batch, time) int64, padded with 0, and lengths."""
        import torch

        rows = [torch.tensor([int(index) for index in ids], dtype=torch.int64) for ids in encoded]
        padded: Any = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return padded, torch.tensor([len(row) for row in rows])

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": "unrolled.LabelSequenceEncoder", "labels": list(self.labels)}
