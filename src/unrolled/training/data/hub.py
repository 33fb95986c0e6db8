"""Data sets of the library `datasets`: from the Hugging Face hub, a folder or a builder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.files import did_you_mean


class HubSplits:
    """The training, validation and test splits of a data set, loaded on first access.

    Args:
        dataset: name of the data set on the hub, its folder (also one of `save_to_disk`), or a builder such as "text",
            "json" or "parquet".
        options: `splits`, a mapping from train, validation and test to the data set's names of the splits, by default
            equal names; all other options are passed to `datasets.load_dataset`: `name`, `revision`, `data_files`,
            `streaming`, …

    Raises:
        DataError: `splits` has other keys than train, validation and test.
    """

    def __init__(self, dataset: str, options: Mapping[str, Any]) -> None:
        options = dict(options)
        self.dataset = dataset
        self._names: dict[str, str] | None = options.pop("splits", None)
        self._options = options
        self._loaded: dict[str, Any] | None = None
        if self._names is not None and (set(self._names) - set(SPLITS) or "train" not in self._names):
            raise DataError(f"splits names the data set's train, validation and test splits, got {self._names}")

    def __str__(self) -> str:
        return f"data set {self.dataset}"

    def splits(self) -> dict[str, Any]:
        """Returns the loaded data set of each split.

        Raises:
            DataError: the data set cannot be loaded, or lacks a split.
        """
        if self._loaded is None:
            splits = self._load()
            self._loaded = {split: splits[name] for split, name in self._chosen(splits).items()}
        return self._loaded

    def fingerprint(self) -> dict[str, Any]:
        """Returns plain data that differ when the rows do; for a streamed split, when its name or revision does."""
        prints = {
            split: (rows._fingerprint, len(rows)) if hasattr(rows, "_fingerprint") else self._described()
            for split, rows in self.splits().items()
        }
        return {"rows": prints}

    def _described(self) -> list[str]:
        return [self.dataset, repr(sorted(self._options.items())), repr(self._names)]

    def _load(self) -> Mapping[str, Any]:
        import datasets

        try:
            if any((Path(self.dataset) / name).is_file() for name in ("dataset_dict.json", "state.json")):
                loaded: Any = datasets.load_from_disk(self.dataset, **self._options)
            else:
                loaded = datasets.load_dataset(self.dataset, **self._options)
        except Exception as error:  # a builder may raise anything, such as StopIteration for an empty pattern
            raise DataError(
                f"cannot load data set {self.dataset!r} with {self._options or 'no options'}: "
                f"{type(error).__name__}: {error}"
            ) from error
        return loaded if isinstance(loaded, Mapping) else {"train": loaded}

    def _chosen(self, splits: Mapping[str, Any]) -> dict[str, str]:
        names = self._names or {split: split for split in SPLITS if split in splits or split == "train"}
        for split, name in names.items():
            if name not in splits:
                raise DataError(
                    f"data set {self.dataset!r} has no split {name!r}{did_you_mean(name, splits)}; "
                    f"it has {', '.join(splits)}. Name it by dataset_options.splits.{split}"
                )
        return names
