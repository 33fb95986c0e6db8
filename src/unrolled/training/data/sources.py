"""Where the items of a data set come from, one by one: the base class, and items made from rows of tables."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from unrolled.training.data.rows import Row, Rows

Item_co = TypeVar("Item_co", covariant=True)


class Source(ABC, Generic[Item_co]):
    """Items for training, and optionally for validation and test: documents, pairs, captioned images."""

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The splits with their own items: "train" and any other of SPLITS."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Returns plain data that differ whenever the items do."""

    @abstractmethod
    def read(self, split: str) -> Iterator[Item_co]:
        """Yields a split's items, in a fixed order."""


class RowSource(Source[Item_co]):
    """An item for each row of tables or of a data set.

    Args:
        rows: the rows; see `rows_of`.
        convert: makes an item of a row; raises DataError with the row's place.
        options: plain data of all that `convert` depends on, such as the names of columns.
    """

    def __init__(self, rows: Rows, convert: Callable[[Row], Item_co], options: Any) -> None:
        self.rows, self._convert, self._options = rows, convert, options

    def __str__(self) -> str:
        return str(self.rows)

    @property
    def splits(self) -> tuple[str, ...]:
        return self.rows.splits

    def fingerprint(self) -> dict[str, Any]:
        return {"options": self._options, **self.rows.fingerprint()}

    def read(self, split: str) -> Iterator[Item_co]:
        """See `Source.read`.

        Raises:
            DataError: a file that cannot be read, or a row that cannot be used.
        """
        return map(self._convert, self.rows.read(split))
