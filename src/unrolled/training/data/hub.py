"""Data sets that the library `datasets` finds: on the Hugging Face hub, in a folder, or made by a builder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.files import nearest


class HubSplits:
    """The training, validation and test splits of a data set, loaded when they are first asked for.

    Args:
        dataset: name of the data set on the hub, its folder (also one that `save_to_disk` wrote), or a builder such as
            "text", "json" or "parquet".
        options: `splits`, the data set's names of the splits, by default their own names; all else goes to
            `datasets.load_dataset`: `name`, `revision`, `data_files`, `streaming`, …

    Raises:
        DataError: splits for anything but train, validation and test.
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
        """Part -> what `datasets` loaded for it.

        Raises:
            DataError: a data set that cannot be loaded, or that lacks a split.
        """
        if self._loaded is None:
            splits = self._load()
            self._loaded = {split: splits[name] for split, name in self._chosen(splits).items()}
        return self._loaded

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that differ when the rows do; of a streamed split, when its name or revision does."""
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
        except Exception as error:  # a builder may raise anything, a bare StopIteration for an empty pattern
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
                    f"data set {self.dataset!r} has no split {name!r}{nearest(name, splits)}; "
                    f"it has {', '.join(splits)}. Name it by dataset_options.splits.{split}"
                )
        return names
