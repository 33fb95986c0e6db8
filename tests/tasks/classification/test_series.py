"""Series of measurements: read, normalised by channel, and refused with their place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled.training.data import DataError
from unrolled_tasks.classification import ClassificationData, Series
from unrolled_tasks.classification.data import LabelledBatch

Batches = Callable[..., list[LabelledBatch]]


TS = """#a comment
@problemName Small
@timeStamps false
@classLabel true a b
@data
"""


def ts(path: Path, lines: list[str]) -> Path:
    path.write_text(TS + "\n".join(lines) + "\n")
    return path


def series_data(path: Path, reader: Series | None = None, **options: Any) -> ClassificationData:
    data = ClassificationData(**{"reader": reader or Series(), "files": str(path), "cut": [1, 0, 0], **options})
    data.prepare()
    return data


def test_ts_files_are_read_and_normalised_by_channel(tmp_path: Path, batches: Batches) -> None:
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
            "training series 2: step 1 .*, channel 'channel 0' is nan; one of 1",
        ),
        (["1,2:5:a"], r"a\.ts, line 6: 2 channels of 2, 1 steps"),
        (["1,2:5,x:a"], r"line 6: could not convert"),
        (["1,2"], "line 6: a series without a class"),
        ([], r"a\.ts has no series behind @data"),
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

    reader = data.codec().source
    assert reader.channels == ["x", "y"]
    (batch,) = batches(data)
    assert batch.source.shape == (6, 4, 2)
    (tmp_path / "changing.csv").write_text("run,x,label\n1,2,a\n1,3,b\n")
    with pytest.raises(DataError, match=r"changing\.csv, line 3: series 1 changes its answer, which is a before"):
        series_data(tmp_path / "changing.csv", Series(series="run"))
    (tmp_path / "words.csv").write_text("run,x,label\n1,two,a\n")
    with pytest.raises(DataError, match="column 'x' holds no number but 'two'"):
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
