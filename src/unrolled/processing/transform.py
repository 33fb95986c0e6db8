"""Transforms, which convert raw data to tensors and back, and the pair of transforms of a task."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Transform(ABC):
    """One side of a task: raw values to what a network reads or predicts, and back.

    A transform is plain data without parameters. `to_dict` describes it, and a checkpoint stores the description. A
    transform that learns from data has a classmethod `fit`, which reads the training split alone.

    For values that can be restored, `decode(encode(value), given=value) == normalize(value)`.
    """

    @abstractmethod
    def encode(self, value: Any) -> Any:
        """Convert a raw value to a list of ids, an id, or a tensor such as (time, features).

        Raises:
            ValueError: a value that can't be converted.
        """

    def decode(self, encoded: Any, given: Any = None) -> Any:
        """Convert what `encode` returned, or a prediction of it, to a raw value.

        Args:
            encoded: what `encode` returned, or a prediction of the same kind.
            given: the raw source, for transforms that need it.

        Raises:
            ValueError: a transform whose values can't be restored, or a value outside of its range.
        """
        raise ValueError(f"{type(self).__name__} cannot be decoded: its values can't be restored")

    def normalize(self, value: Any) -> Any:
        """Return what `decode` restores of a raw value, such as a text with known characters alone.

        Raises:
            ValueError: a transform whose values can't be restored.
        """
        raise ValueError(f"{type(self).__name__} has no normalized values: its values can't be restored")

    @abstractmethod
    def collate(self, encoded: Sequence[Any]) -> "tuple[Tensor, Tensor]":
        """Combine encoded values to a batch, padded at the end, and return it with the lengths (batch,).

        A value without a time axis has the length 1.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the class as `_target_` and its arguments, from which `unrolled.build` creates the transform again."""


class Processor(NamedTuple):
    """The transforms of a task.

    Attributes:
        source: what the network reads.
        target: what it predicts; None for a language model, which predicts its own source.
    """

    source: Transform
    target: Transform | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the description of both sides, from which `unrolled.build_processor` creates them again."""
        return {"source": self.source.to_dict(), "target": None if self.target is None else self.target.to_dict()}
