"""Rows of tables and of data sets: the same content in any format gives the same rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from unrolled.training.data.base import DataError
from unrolled.training.data.options import SourceOptions
from unrolled.training.data.rows import HubRows, Row, TableRows, rows_of, split_rows
from unrolled.training.data.sources import RowSource
from unrolled.training.data.splitting import Split

ROWS = [{"text": f"sentence {number}", "label": f"l{number % 2}"} for number in range(10)]


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return str(path)


def hub(tmp_path: Path, path: str, **options: Any) -> SourceOptions:
    return SourceOptions(
        dataset="json", dataset_options={"data_files": path, "cache_dir": str(tmp_path / "arrow"), **options}
    )


def test_a_table_and_a_data_set_give_the_same_rows(table: str, tmp_path: Path) -> None:
    read, loaded = rows_of(SourceOptions(files=table)), rows_of(hub(tmp_path, table))
    assert isinstance(read, TableRows)
    assert isinstance(loaded, HubRows)

    ones, others = list(read.read("train")), list(loaded.read("train"))

    assert [row.values for row in ones] == [row.values for row in others] == ROWS
    assert (ones[2].place, ones[2].file) == (f"{Path(table).resolve()}, line 3", Path(table).resolve())
    assert (others[2].place, others[2].file) == ("data set json, train row 3", None)


@pytest.mark.parametrize("streaming", [False, True])
def test_only_the_asked_columns_of_a_data_set_are_read(table: str, tmp_path: Path, streaming: bool) -> None:
    rows = rows_of(hub(tmp_path, table, streaming=streaming), ["text", "other"])

    read = list(rows.read("train"))

    assert [row.values["text"] for row in read] == [row["text"] for row in ROWS]
    assert all(tuple(row.values) == ("text",) for row in read)


def test_classes_have_names_and_images_stay_encoded(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "a.png"
    image.new("L", (2, 2)).save(path)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["x", "y"])),
        }
    )
    given = {"image": [str(path)], "label": [1], "tags": [[0, 1, 1]]}
    datasets.Dataset.from_dict(given, features=features).save_to_disk(str(tmp_path / "set"))

    (row,) = rows_of(SourceOptions(dataset=str(tmp_path / "set"))).read("train")

    assert (row.values["label"], row.values["tags"]) == ("dog", ["x", "y", "y"])
    assert row.values["image"] == {"bytes": path.read_bytes(), "path": "a.png"}


def test_a_missing_column_and_a_cell_without_text_name_the_row_and_the_option() -> None:
    row = Row({"text": "a", "n": 1, "empty": None}, "a.jsonl, line 7")

    assert (row.text("text", "data.x"), row.text("empty", "data.x")) == ("a", "")
    with pytest.raises(DataError, match=r"a\.jsonl, line 7: no column 'txt'; did you mean text\?.*Set data\.source"):
        row.column("txt", "data.source")
    with pytest.raises(DataError, match="line 7: column 'n' contains 1, not text"):
        row.text("n", "data.source")


def test_missing_splits_are_the_last_rows_in_order(table: str) -> None:
    splits = split_rows(SourceOptions(files=table), Split(split_fractions=(0.6, 0.2, 0.2)))

    assert {name: [row.values["text"][-1] for row in rows] for name, rows in splits.items()} == {
        "train": list("012345"),
        "validation": list("67"),
        "test": list("89"),
    }


def test_items_of_rows_change_their_fingerprint_with_the_file_and_the_options(table: str) -> None:
    def source(options: Any) -> RowSource[str]:
        return RowSource(rows_of(SourceOptions(files=table)), lambda row: row.text("text", "data.text"), options)

    one = source(["text"])
    assert list(one.read("train")) == [row["text"] for row in ROWS]
    assert one.fingerprint() == source(["text"]).fingerprint() != source(["label"]).fingerprint()
    before = one.fingerprint()
    Path(table).write_text('{"text": "other"}\n')
    assert one.fingerprint() != before
