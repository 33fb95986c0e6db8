"""Tables in files: JSON lines, separated values, Parquet; read row by row, as text, nothing guessed."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unrolled.training.data import DataError
from unrolled.training.files import read_lines, suffix_of

TABLES = (".jsonl", ".json", ".ndjson", ".tsv", ".csv", ".parquet")


def is_table(name: str) -> bool:
    """Whether a path is that of a table, or of a folder that may hold some."""
    return suffix_of(Path(name)) in TABLES or Path(name).expanduser().is_dir()


def read_table(path: Path, *, named: bool = True) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """(place, row) of a .jsonl (.json, .ndjson), .tsv, .csv or .parquet file; all but the last may be packed.

    Args:
        path: the file.
        named: whether the first line of .tsv and .csv names the columns; otherwise they are numbers from 0.

    Raises:
        DataError: a file that cannot be read, that is no table, or whose rows have unequal columns.
    """
    kind = suffix_of(path)
    if kind == ".parquet":
        rows = _parquet_rows(path)
    elif kind in (".tsv", ".csv"):
        rows = _separated_rows(path, kind, named)
    elif kind in TABLES:
        rows = _json_rows(path)
    else:
        raise DataError(f"{path} is no table; tables are {', '.join(TABLES)}")
    return ((f"{path}, {'row' if kind == '.parquet' else 'line'} {number}", row) for number, row in rows)


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number} is no JSON: {error}; each line has to be an object") from error
        if not isinstance(row, Mapping):
            raise DataError(f"{path}, line {number} is no object, but {line:.80}; each line has to be one")
        yield number, row


def _separated_rows(path: Path, kind: str, named: bool) -> Iterator[tuple[int, Mapping[Any, str]]]:
    if kind == ".tsv":
        rows = ((number, line.split("\t")) for number, line in enumerate(read_lines(path), start=1) if line)
    else:
        reader = csv.reader(line + "\n" for line in read_lines(path))
        rows = ((reader.line_num, row) for row in reader if row)
    header: list[str] | None = None
    try:
        for number, fields in rows:
            if named and header is None:
                header = fields
            elif header is not None and len(header) != len(fields):
                raise DataError(
                    f"{path}, line {number} has {len(fields)} columns, the first line {len(header)}: "
                    f"{', '.join(header):.80}; the first line has to name the columns, or give them as numbers"
                )
            else:
                yield number, dict(zip(header, fields, strict=True)) if header else dict(enumerate(fields))
    except csv.Error as error:
        raise DataError(f"{path} is no CSV: {error}") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as table:
            number = 0
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path} is no Parquet file: {error}") from error


def single_spaced(text: str) -> str:
    """The text without blanks at its ends, and with a plain space for every run of blanks of whatever width."""
    return " ".join(text.split())
