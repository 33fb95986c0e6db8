"""Series from files of every kind, their windows, and what is wrong with them."""

import json
import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
import torch
from pyarrow import parquet

from unrolled.training.data.base import DataError
from unrolled.training.data.buckets import BatchSpec
from unrolled_tasks.forecasting import ForecastingData
from unrolled_tasks.forecasting.data import ForecastBatch

START = datetime(2024, 1, 1)
ROWS = [
    {"date": str(START + timedelta(days=day)), "shop": shop, "sales": 10.0 * place + day, "open": day % 7 > 0}
    for day in range(60)
    for place, shop in enumerate(("north", "south"))
]
OPTIONS: dict[str, Any] = {"time": "date", "series": "shop", "target": ["sales"], "context": 14, "horizon": 4}


def written(folder: Path, kind: str, rows: list[dict[str, Any]] = ROWS) -> dict[str, Any]:
    path = folder / f"x.{kind}"
    if kind == "hub":
        datasets.Dataset.from_list(rows).save_to_disk(path)
        return {"dataset": str(path)}
    if kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif kind == "csv":
        lines = [",".join(map(str, row.values())) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *lines]))
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    return {"files": str(path)}


def loaded(**options: Any) -> ForecastingData:
    data = ForecastingData(**{**OPTIONS, **options})
    data.prepare()
    return data


def batch_of(data: ForecastingData, split: str, rows: list[int]) -> ForecastBatch:
    return data.batch(split, BatchSpec(rows=torch.tensor(rows).numpy(), epoch=0), 1.0, scored=True)


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "hub"])
def test_every_kind_of_table_gives_the_same_windows(kind: str, folder: Path) -> None:
    data = loaded(**written(folder, kind))

    assert data.splits() == ("train", "validation", "test")
    assert data.sizes() == {"past": 0, "future": 4, "targets": 1, "context": 14, "horizon": 4}
    lengths, counts = data.examples("train", scored=False)
    assert len(lengths) == len(counts) == 2 * (42 - 4 - 14 + 1)
    assert "of 2 series with 120 steps of 1 day" in data.describe()
    batch = batch_of(data, "test", [0])
    series, origin = data.window("test", 0)
    assert (series.name, origin) == ("north", 48)
    restored = data.transform.decode(batch.targets[0], given=series)[:, 0]
    assert restored.tolist() == pytest.approx([48, 49, 50, 51], abs=1e-4)


def test_scales_are_those_of_each_series_training_steps(folder: Path) -> None:
    changed = [dict(row, sales=1e6) if n >= 2 * 42 else row for n, row in enumerate(ROWS)]  # validation and test
    one, other = loaded(**written(folder, "csv")), loaded(**written(folder, "jsonl", changed))

    assert one.transform.scales == other.transform.scales
    assert one.fingerprint() == other.fingerprint()
    north, south = one.transform.scales["north"], one.transform.scales["south"]
    assert north.centers[0] == pytest.approx(20.5)
    assert south.centers[0] == pytest.approx(30.5)
    assert north.scales[0] == pytest.approx(torch.arange(42.0).std(correction=0).item())


def test_no_window_predicts_a_step_of_another_split(folder: Path) -> None:
    data = loaded(**written(folder, "csv"))
    borders = {"train": (0, 42), "validation": (42, 48), "test": (48, 60)}
    for split, (begin, end) in borders.items():
        origins = [data.window(split, n)[1] for n in range(len(data.examples(split, scored=True).counts))]
        assert min(origins) >= max(begin, 1)
        assert max(origins) + 4 == end


def test_steps_of_the_splits_and_strides(folder: Path) -> None:
    data = loaded(**written(folder, "csv"), split_steps=[30, 10, 20], stride=3, scoring_stride=5)
    origins = {split: [data.window(split, n)[1] for n in range(2)] for split in data.splits()}
    assert origins == {"train": [14, 17], "validation": [30, 35], "test": [40, 45]}


def test_missing_numbers_and_covariates(folder: Path) -> None:
    rows = [dict(row, sales="" if n in (2, 60) else row["sales"]) for n, row in enumerate(ROWS)]
    data = loaded(**written(folder, "csv", rows), future=[], past=[])
    assert sum(data.examples("train", scored=False).counts) < 2 * 25 * 4
    batch = batch_of(data, "train", [13])  # predicts steps 27 to 30
    assert batch.mask[0, :, 0].tolist() == [True, True, True, False]
    assert bool(batch.past.isfinite().all())
    numbers = [dict(row, open=int(row["open"])) for row in ROWS]
    known = loaded(**written(folder, "jsonl", numbers), future=["open"])
    assert known.sizes()["future"] == 5
    assert known.sizes()["past"] == 0


def test_a_table_of_one_series_and_a_split_of_its_own(folder: Path) -> None:
    rows = [{"time": n, "target": math.sin(n)} for n in range(40)]
    found = ForecastingData(**written(folder, "csv", rows), context=5, horizon=3, split_fractions=(0, 0, 1))
    found.prepare()
    assert found.splits() == ("test",)
    assert found.window("test", 0)[1] == 5  # the first with a whole context
    trained = ForecastingData(**written(folder, "csv", rows), context=5, horizon=3)
    trained.prepare()
    again = ForecastingData(
        **written(folder, "csv", rows), split_fractions=(0, 0, 1), processor_from=trained.processor().to_dict()
    )
    again.prepare()
    assert again.transform.to_dict() == trained.transform.to_dict()


def test_the_backtest_of_a_new_series_is_scaled_by_the_steps_before_it(folder: Path) -> None:
    given = loaded(**written(folder, "csv")).processor().to_dict()
    new = [dict(row, shop="new") for row in ROWS if row["shop"] == "north"]
    changed = [dict(row, sales=1e6) if day >= 14 else row for day, row in enumerate(new)]

    for rows in (new, changed):
        data = loaded(**written(folder, "jsonl", rows), split_fractions=(0, 0, 1), processor_from=given)
        assert data.window("test", 0)[1] == 14
        assert data.transform.scales["new"].centers == pytest.approx([6.5])
        assert data.transform.scales["north"].centers == pytest.approx([20.5])
        assert batch_of(data, "test", [0]).past[0, :, 0].mean() == pytest.approx(0, abs=1e-6)
    trained = loaded(**written(folder, "jsonl", new), split_fractions=(0.5, 0.2, 0.3), processor_from=given)
    assert trained.transform.scales["new"].centers == pytest.approx([14.5])


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({}, {"horizon": 60}, r"x.csv, line 2: series 'north' has 60 steps, but a window needs 60 steps to predict"),
        ({}, {"horizon": 8}, "the longest validation split has 6 steps, fewer than the horizon of 8 steps"),
        ({"sales": ""}, {}, r"x.csv, line 2: series 'north' has no observed number in target 1|is empty"),
        ({"date": "2024-01-01"}, {}, r"x.csv, line 4: the time .* of series 'north' is also that of .*line 2"),
        ({"sales": "many"}, {}, r"x.csv, line 2: column 'sales' contains 'many', not a number"),
        ({}, {"target": ["sold"]}, r"x.csv, line 2: no column 'sold'; the columns are date, shop, sales, open"),
        ({}, {"split_steps": [50, 10, 10]}, r"line 2: series 'north' has 60 steps, fewer than data.split_steps"),
        ({}, {"frequency": "fortnight"}, "'fortnight' is not a frequency"),
        ({}, {"context": 0}, "context=0 must be 1 or more"),
        ({}, {"validation_files": "y.csv"}, "series are divided by time, not by files"),
        ({}, {"split_steps": [1, 2]}, "must be three numbers"),
    ],
)
def test_what_is_wrong_is_answered(change: dict[str, Any], options: dict[str, Any], said: str, folder: Path) -> None:
    rows = [{**row, **change} for row in ROWS]
    with pytest.raises(DataError, match=said):
        loaded(**{**written(folder, "csv", rows), **options})


def test_the_default_needs_no_file() -> None:
    data = ForecastingData(weather=True, time="date", target=["temp_max"], past=["wind"], context=30, horizon=7)
    data.prepare()
    assert "1 series with 1,461 steps of 1 day" in data.describe()
    assert data.transform.season == 7
