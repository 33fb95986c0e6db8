"""Series of measurements: read, normalized by channel, and refused with their place."""

import gzip
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from unrolled.training.data.base import DataError
from unrolled_tasks.classification import ClassificationData, Series
from unrolled_tasks.classification.data import LabeledBatch
from unrolled_tasks.classification.scores import Prediction, number_scores

Batches = Callable[..., list[LabeledBatch]]


TS = """#a comment
@problemName Small
@timeStamps false
@classLabel true a b
@data
"""


def ts(path: Path, lines: list[str]) -> Path:
    path.write_text(TS + "\n".join(lines) + "\n")
    return path


def series_data(path: Path, modality: Series | None = None, **options: Any) -> ClassificationData:
    data = ClassificationData(
        **{"modality": modality or Series(), "files": str(path), "split_fractions": [1, 0, 0], **options}
    )
    data.prepare()
    return data


def test_ts_files_are_read_and_normalized_by_channel(tmp_path: Path, batches: Batches) -> None:
    data = series_data(ts(tmp_path / "a.ts", ["1,2,3:5,5,5:a", "4,5:5,5:b", "1,2:5,5:a", "0,9:5,5:b"]))

    (batch,) = batches(data)
    values = torch.cat([batch.source[row, : int(n)] for row, n in enumerate(batch.lengths)])
    assert values.shape == (9, 2)
    torch.testing.assert_close(values[:, 0].mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(values[:, 0].std(unbiased=False), torch.tensor(1.0))
    assert not values[:, 1].any()  # a constant channel


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["1,2:5,5:a", "1,?:5,5:a", "1:1:b", "2:1:b"],
            "training series 2: step 1 .*, channel 'channel 0' is nan, one of 1",
        ),
        (["1,2:5:a"], r"a\.ts, line 6: 2 channels of 2, 1 steps"),
        (["1,2:5,x:a"], r"line 6: could not convert"),
        (["1,2"], "line 6: a series without a class"),
        ([], r"a\.ts has no series after @data"),
    ],
)
def test_a_broken_series_is_named_with_its_place(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        series_data(ts(tmp_path / "a.ts", lines))


def test_a_nan_in_the_test_part_is_named_too(tmp_path: Path) -> None:
    train = ts(tmp_path / "a.ts", ["1,2:a", "3,4:b", "1,1:a", "3,5:b"])
    test = ts(tmp_path / "b.ts", ["1,?:a"])

    with pytest.raises(
        DataError, match=r"test, .*b\.ts, line 6: step 1 \(the first is 0\), channel 'channel 0' is nan"
    ):
        series_data(train, test_files=str(test))


def test_tables_with_a_row_for_each_step_are_read(tmp_path: Path, batches: Batches) -> None:
    lines = ["run,x,y,label"] + [
        f"{run},{run + step},{step * step},{'ab'[run % 2]}" for run in range(6) for step in range(4)
    ]
    (tmp_path / "long.csv").write_text("\n".join(lines))

    data = series_data(tmp_path / "long.csv", Series(series="run"))

    scaler = data.codec().source
    assert scaler.channels == ["x", "y"]
    (batch,) = batches(data)
    assert batch.source.shape == (6, 4, 2)
    (tmp_path / "changing.csv").write_text("run,x,label\n1,2,a\n1,3,b\n")
    with pytest.raises(DataError, match=r"changing\.csv, line 3: the target of series 1 changes; it was a before"):
        series_data(tmp_path / "changing.csv", Series(series="run"))
    (tmp_path / "words.csv").write_text("run,x,label\n1,two,a\n")
    with pytest.raises(DataError, match="column 'x' contains 'two', not a number"):
        series_data(tmp_path / "words.csv", Series(series="run"))


def test_a_file_may_be_a_series(tmp_path: Path, batches: Batches) -> None:
    for label in ("up", "down"):
        (tmp_path / label).mkdir()
        for n in range(3):
            steps = "\n".join(str(step if label == "up" else -step) for step in range(n + 2))
            (tmp_path / label / f"{n}.csv").write_text(f"x\n{steps}\n")

    data = series_data(tmp_path)

    assert data.codec().labels == ["down", "up"]
    assert sorted(n for batch in batches(data) for n in batch.lengths.tolist()) == [2, 2, 3, 3, 4, 4]


FORMATS = ("ts", "csv", "tsv", "parquet", "csv.gz")


def far_series(folder: Path, kind: str, offset: float) -> tuple[Path, np.ndarray, np.ndarray]:
    """Twelve series of 20 steps and their numbers, all so far from zero, as a file of this kind."""
    drawn = np.random.default_rng(5)
    values, answers = (np.round(offset + drawn.normal(size=size), 4) for size in ((12, 20), 12))
    path = folder / f"far.{kind}"
    if kind == "ts":
        ts(
            path,
            [",".join(map(repr, map(float, row))) + f":{float(n)!r}" for row, n in zip(values, answers, strict=True)],
        )
        return path, values, answers
    rows = [(n, float(value), float(answers[n])) for n, row in enumerate(values) for value in row]
    if kind == "parquet":
        run, x, label = zip(*rows, strict=True)
        parquet.write_table(pyarrow.table({"run": run, "x": x, "label": label}), path)
        return path, values, answers
    separator = "\t" if kind == "tsv" else ","
    text = "\n".join(separator.join(map(repr, row)) for row in rows)
    written = f"run{separator}x{separator}label\n{text}\n".encode()
    path.write_bytes(gzip.compress(written) if kind.endswith("gz") else written)
    return path, values, answers


@pytest.mark.parametrize("storage", ["memory", "disk"])
@pytest.mark.parametrize("kind", FORMATS)
def test_series_and_numbers_far_from_zero_are_normalized_as_numpy_does_it(
    tmp_path: Path, batches: Batches, kind: str, storage: str
) -> None:
    path, values, answers = far_series(tmp_path, kind, 1e8)
    modality = Series() if kind == "ts" else Series(series="run")

    data = series_data(
        path,
        modality,
        target_type="number",
        storage=storage,
        cache=str(tmp_path / "cache"),
        split_fractions=[0.5, 0.5, 0],
    )

    training = {int(e): row for b in batches(data, "train") for e, row in zip(b.examples, b.source, strict=True)}
    targets = {int(e): t for b in batches(data, "train") for e, t in zip(b.examples, b.targets, strict=True)}
    (scored,) = batches(data, "validation")
    # Which examples were taken for validation is drawn: their numbers tell them apart.
    validation = {float(n[0]) for n in scored.numbers}
    left = [n for n in range(12) if answers[n] not in validation]
    assert (len(left), len(validation)) == (6, 6)
    mean, deviation = values[left].mean(), values[left].std()
    for place, n in enumerate(left):
        np.testing.assert_allclose(training[place][:, 0], (values[n] - mean) / deviation, rtol=0, atol=1e-6)
        right = (answers[n] - answers[left].mean()) / answers[left].std()
        np.testing.assert_allclose(targets[place].numpy(), [right], rtol=0, atol=1e-6)


def test_scores_of_numbers_do_not_depend_on_where_zero_lies() -> None:
    drawn = np.random.default_rng(6)
    targets, outputs = drawn.normal(size=(50, 2)), drawn.normal(size=(50, 2))
    right = {
        "mean_absolute_error": mean_absolute_error(targets, outputs),
        "root_mean_squared_error": math.sqrt(mean_squared_error(targets, outputs)),
        "r2": r2_score(targets, outputs),
    }
    for offset in (0.0, 1e6, 1e9):
        pairs = zip((targets + offset).tolist(), (outputs + offset).tolist(), strict=True)
        found = number_scores([Prediction(n, "", target, output, []) for n, (target, output) in enumerate(pairs)])
        assert found == pytest.approx(right, rel=1e-5)


def test_numbers_that_no_float_holds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("run,x,label\n0,1,1e308\n1,2,-1e308\n2,3,1e308\n")
    with pytest.raises(DataError, match="label: numbers up to 1e\\+308 are too large for training"):
        series_data(tmp_path / "a.csv", Series(series="run"), target_type="number")
    (tmp_path / "b.csv").write_text("run,x,label\n0,1,1\n1,2,2\n2,3,3\n")
    (tmp_path / "c.csv").write_text("run,x,label\n0,1,1e300\n")
    with pytest.raises(DataError, match="'1e300' is too far from the training split's numbers"):
        series_data(
            tmp_path / "b.csv",
            Series(series="run"),
            target_type="number",
            test_files=str(tmp_path / "c.csv"),
            split_fractions=[1, 0, 0],
        )
