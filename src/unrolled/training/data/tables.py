"""Tables in files: JSON lines, separated values, Parquet; read row by row, as text, nothing guessed."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from unrolled.training.data.base import DataError
from unrolled.training.data.files import read_lines, suffix_of
from unrolled.wording import counted

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
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
        DataError: a file that cannot be read, that is no table, names a column twice, or has rows of unequal columns.
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
        row = parsed_json(line, f"{path}, line {number}", "; each line has to be an object")
        if not isinstance(row, Mapping):
            raise DataError(f"{path}, line {number} is no object, but {line:.80}; each line has to be one")
        yield number, row


def parsed_json(text: str, place: str, hint: str = "") -> Any:
    """What a JSON text holds.

    Args:
        text: the JSON.
        place: where it stands, for messages.
        hint: put behind them.

    Raises:
        DataError: a text that is no JSON, is nested too deeply, or names a key of an object twice.
    """
    try:
        found = json.loads(text, object_pairs_hook=partial(_only_once, place))
        if _SURROGATE.search(text):  # half a character, which no file can be written with
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except DataError:
        raise
    except (ValueError, RecursionError) as error:  # also of a number with more digits than Python reads
        said = "its objects and lists are nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(f"{place} is no JSON: {said}{hint}") from None


def _only_once(place: str, pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """The pairs as a dict, of which one would otherwise hide the other in silence.

    Raises:
        DataError: a name given twice.
    """
    row = dict(pairs)
    if len(row) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        named = f"{twice!r} is given" if twice != "" else "a column without a name is there"
        raise DataError(f"{place}: {named} {counts[twice]} times; name each column once, or take the others out")
    return row


def _separated_rows(path: Path, kind: str, named: bool) -> Iterator[tuple[int, Mapping[Any, str]]]:
    if kind == ".tsv":
        rows = ((number, line.split("\t")) for number, line in enumerate(read_lines(path), start=1) if line)
    else:
        reader = csv.reader(line + "\n" for line in read_lines(path))
        rows = ((reader.line_num, row) for row in reader if row)
    header: list[str] | None = None
    number = 0
    try:
        for number, fields in rows:
            if named and header is None:
                header = list(_only_once(f"{path}, line {number}", [(name, None) for name in fields]))
            elif header is not None and len(header) != len(fields):
                raise DataError(
                    f"{path}, line {number} has {counted(len(fields), 'column')}, the first line {len(header)}: "
                    f"{', '.join(header):.80}; the first line has to name the columns, or give them as numbers"
                )
            else:
                yield number, dict(zip(header, fields, strict=True)) if header else dict(enumerate(fields))
    except csv.Error as error:
        raise DataError(
            f"{path} is no CSV: {error} behind line {number}; a quotation mark may lack its end, and texts of more "
            f"than {csv.field_size_limit()} characters belong into a .jsonl file"
        ) from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as table:
            _only_once(str(path), [(name, None) for name in table.schema_arrow.names])
            number = 0
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except DataError:
        raise
    # Of damage, Arrow tells by exceptions of its own, by the system's, and by Python's where it makes Python's values.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is no Parquet file that can be read: {said:.300}") from error


def single_spaced(text: str) -> str:
    """The text without blanks at its ends, and with a plain space for every run of blanks of whatever width."""
    return " ".join(text.split())
