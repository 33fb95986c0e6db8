"""Modalities: how the sources of examples are opened and converted to the inputs of a network."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.processing.transform import Transform
from unrolled.training.console.terminal import quoted_path
from unrolled.training.data.base import DataError
from unrolled.training.data.examples import Columns, Example
from unrolled.wording import article, counted


class Modality(ABC):
    """A kind of source, which is opened, and read by a transform fitted on the training split.

    Attributes:
        unit: the unit of a step: "frame" or "token".
        suffixes: suffixes of files that are one example each.
        what: name of such files in messages.
        reads: the class of the transform.
        data: the choice of the configuration group `data` for files of this modality.
        augments: whether training sources are augmented.
        partial: whether truncated sources are opened as far as possible, if the modality supports it.
    """

    unit: ClassVar[str] = "frame"
    suffixes: ClassVar[tuple[str, ...]] = ()
    what: ClassVar[str] = "files"
    reads: ClassVar[type] = object
    data: ClassVar[str] = ""
    partial: bool = False

    @property
    def augments(self) -> bool:
        return False

    @property
    def truncated(self) -> Sequence[str]:
        """Descriptions of the truncated sources opened so far."""
        return ()

    def file_examples(self, path: Path, columns: Columns) -> Iterable[Example] | None:
        """Returns the examples of a file that contains several in the modality's own format; None for other files."""
        return None

    @abstractmethod
    def open(self, example: Example) -> Any:
        """Loads the source of an example into memory.

        Raises:
            ValueError: the source cannot be used. The caller adds the place.
        """

    @abstractmethod
    def fit(self, sources: Sequence[Any]) -> Transform:
        """Fits the transform to the sources of the training split."""

    def options(self) -> dict[str, Any]:
        """Returns all options that affect opening and reading, as plain data.

        Raises:
            DataError: the modality does not implement this method.
        """
        raise DataError(
            f"{type(self).__name__} has no options(), which the cache of examples needs: set data.storage=memory"
        )

    def restore(self, transform: Transform) -> None:
        """Sets the options that a trained network's transform determines, before any source is opened.

        Raises:
            DataError: the network reads another modality.
        """
        if not isinstance(transform, self.reads):
            raise DataError(
                f"this checkpoint's network reads with {article(type(transform).__name__)}, and "
                f"{type(self).__name__} are read with {article(self.reads.__name__)}: "
                f"choose data of the network's modality, data=…"
            )

    @abstractmethod
    def read(self, source: Any, extractor: Any) -> Tensor:
        """Converts a source to the network's input: (time,) ids or (time, features)."""

    def augmented(self, sources: Sequence[Any], extractor: Any, seeds: Sequence[int]) -> list[Tensor]:
        """Augments sources, each with its seed, and converts them to inputs. By default there is no augmentation."""
        return [self.read(source, extractor) for source in sources]

    def steps(self, source: Any, extractor: Any) -> int:
        """Returns the number of steps of `read`."""
        return len(self.read(source, extractor))

    def display_name(self, example: Example, source: Any) -> str:
        """Returns a readable name of an example, by which the user can find it."""
        return example.place

    def example(self, example: Example, folder: Path) -> str | None:
        """Returns an example as an argument of a command: a line of text, or the path of a file.

        If the source is not a file, one may be written to the folder. None if the example cannot be an argument.
        """
        path = located(example)
        return quoted_path(path) if isinstance(path, Path) and path.is_file() else None

    def describe(self, extractor: Any) -> str:
        """Describes the network's inputs in a few words."""
        return f"{counted(extractor.output_size, 'feature')} a {self.unit}"


def located(example: Example) -> Any:
    """Returns the source of an example, with the path of a named file relative to the folder of its table."""
    source = example.source
    if isinstance(source, Mapping):
        encoded: Mapping[str, Any] = source
        source = encoded.get("bytes") or encoded.get("path")
    if isinstance(source, str):
        table = Path(example.place.partition(", line ")[0].partition(", row ")[0])
        return Path(source) if Path(source).is_absolute() else table.parent / source
    return source


def batched(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the sequences as one tensor, padded with zeros, and their lengths."""
    return pad_sequence(list(sequences), batch_first=True), torch.tensor([len(sequence) for sequence in sequences])
