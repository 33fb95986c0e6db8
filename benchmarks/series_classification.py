"""Accuracy of `unrolled.fit` with its defaults on small sets of series, beside a nearest neighbor under DTW.

    python benchmarks/series_classification.py --seeds 3

The sets are those of the package aeon (extra `series`), with the splits of the archive: BasicMotions and
JapaneseVowels; and the digits of scikit-learn, read row by row, with 300 images for training. The baseline is aeon's
KNeighborsTimeSeriesClassifier(distance="dtw"), which has no seed.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

import unrolled

Split = tuple[Sequence[Any], Sequence[Any], Sequence[Any], Sequence[Any]]  # x, x of the test, y, y of the test


def archive(load: Callable[..., Any]) -> Split:
    """Returns a set of aeon, whose series are (features, time)."""
    (x, y), (x_test, y_test) = (load(split=split) for split in ("train", "test"))
    return [each.T for each in x], [each.T for each in x_test], y, y_test


def digits() -> Split:
    x, y = load_digits(return_X_y=True)
    found: Any = train_test_split(list(x.reshape(-1, 8, 8)), y, train_size=300, random_state=0, stratify=y)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", default=["basic_motions", "japanese_vowels", "digits"])
    parser.add_argument("--no-baseline", action="store_true", help="leave out the nearest neighbor")
    parser.add_argument("--max-epochs", type=int, default=100)
    options = parser.parse_args()

    print("| set | seeds 0 … | mean | 1-NN DTW | seconds of a fit |\n|---|---|---|---|---|")
    for name in options.sets:
        x, x_test, y, y_test = digits() if name == "digits" else archive(_loader(name))
        scores, seconds = list[float](), list[float]()
        for seed in range(options.seeds):
            begin = time.process_time()
            model: Any = unrolled.fit(
                x, y, task="classifier", max_epochs=options.max_epochs, random_state=seed, verbose=False
            )
            seconds.append(time.process_time() - begin)
            scores.append(model.score(x_test, y_test))
        baseline = "" if options.no_baseline else f"{_nearest_neighbor(x, x_test, y, y_test):.3f}"
        row = [name, ", ".join(f"{score:.3f}" for score in scores), f"{statistics.mean(scores):.3f}", baseline]
        print("|", " | ".join([*row, f"{statistics.median(seconds):.0f}"]), "|", flush=True)


def _loader(name: str) -> Callable[..., Any]:
    from aeon import datasets

    return getattr(datasets, f"load_{name}")


def _nearest_neighbor(x: Sequence[Any], x_test: Sequence[Any], y: Sequence[Any], y_test: Sequence[Any]) -> float:
    from aeon.classification.distance_based import KNeighborsTimeSeriesClassifier

    model = KNeighborsTimeSeriesClassifier(distance="dtw").fit([each.T for each in x], y)
    return float(accuracy_score(y_test, model.predict([each.T for each in x_test])))


if __name__ == "__main__":
    main()
