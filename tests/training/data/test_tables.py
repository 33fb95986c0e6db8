"""Tables that hold what they should not, each refused in a line that names the place."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from unrolled.training.data.base import DataError
from unrolled.training.data.tables import read_table


def rows(path: Path, content: bytes | str, **options: Any) -> list[Any]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [dict(row) for _, row in read_table(path, **options)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x,y,x\n1,2,3\n", r"a\.csv, line 1: 'x' occurs 2 times; give each column a different name"),
        ("a.tsv", "x\ty\tx\n1\t2\t3\n", r"a\.tsv, line 1: 'x' occurs 2 times"),
        ("a.csv", "x,,\n1,2,3\n", r"a\.csv, line 1: a column without a name occurs 2 times"),
        ("a.jsonl", '{"x": 1}\n{"x": 1, "x": 2}\n', r"a\.jsonl, line 2: 'x' occurs 2 times"),
        ("a.jsonl", '{"x": {"y": 1, "y": 2}}\n', r"a\.jsonl, line 1: 'y' occurs 2 times"),
        (
            "a.jsonl",
            '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}",
            r"a\.jsonl, line 1 is not valid JSON: .* too deeply",
        ),
        ("a.jsonl", '{"x": ' + "9" * 5000 + "}", r"a\.jsonl, line 1 is not valid JSON: Exceeds the limit"),
        ("a.jsonl", '{"x": "\\ud800"}', r"a\.jsonl, line 1 is not valid JSON: .*surrogates not allowed"),
        ("a.jsonl", '{"x": }', r"a\.jsonl, line 1 is not valid JSON: .*; each line must be an object"),
        ("a.csv", 'x,y\n1,"' + "z" * 200_000, r"a\.csv is not valid CSV: field larger .*\.jsonl"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows(tmp_path / name, content)


def test_what_is_no_fault_is_read(tmp_path: Path) -> None:
    assert rows(tmp_path / "a.csv", "x,x\n1,2\n", named=False) == [{0: "x", 1: "x"}, {0: "1", 1: "2"}]
    assert rows(tmp_path / "a.jsonl", '{"x": "\\ud83d\\ude00"}') == [{"x": "\N{GRINNING FACE}"}]
    assert rows(tmp_path / "a.json.gz", gzip.compress(b'{"x": {"y": [{"x": 1}, {"x": 2}]}}')) == [
        {"x": {"y": [{"x": 1}, {"x": 2}]}}
    ]


def test_a_parquet_column_given_twice_is_refused(tmp_path: Path) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], names=["x", "x"])
    parquet.write_table(table, tmp_path / "a.parquet")

    with pytest.raises(DataError, match=r"a\.parquet: 'x' occurs 2 times"):
        list(read_table(tmp_path / "a.parquet"))


def test_damage_that_checksums_tell_of_is_found(tmp_path: Path) -> None:
    table = pyarrow.table({"x": list(range(1000))})
    parquet.write_table(table, tmp_path / "a.parquet", write_page_checksum=True, compression=None, use_dictionary=False)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[content.index((500).to_bytes(8, "little"))] ^= 4

    with pytest.raises(DataError, match=r"a\.parquet is not a readable Parquet file: .*CRC"):
        rows(tmp_path / "a.parquet", bytes(content))


def test_the_same_rows_whatever_the_format(tmp_path: Path) -> None:
    wanted = [{"x": "007", "y": "NA"}, {"x": "a b", "y": "é"}]
    parquet.write_table(pyarrow.Table.from_pylist(wanted), tmp_path / "a.parquet")

    assert rows(tmp_path / "a.csv", "x,y\n007,NA\na b,é\n") == wanted
    assert rows(tmp_path / "a.tsv", "x\ty\n007\tNA\na b\té\n") == wanted
    assert rows(tmp_path / "a.jsonl", "\n".join(map(json.dumps, wanted))) == wanted
    assert [dict(row) for _, row in read_table(tmp_path / "a.parquet")] == wanted
