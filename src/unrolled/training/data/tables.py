"""Reading tables row by row: JSON lines, CSV, TSV, Parquet and CoNLL-U. No types are inferred."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from unrolled.training.data.base import DataError
from unrolled.training.data.files import read_lines, suffix_of
from unrolled.wording import counted

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
TABLES = (".jsonl", ".json", ".ndjson", ".tsv", ".csv", ".parquet", ".conllu")
# The fields of a word: https://universaldependencies.org/format.html
CONLLU = ("id", "words", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


def is_table(name: str) -> bool:
    """Whether a path is a table, or a folder that may contain tables."""
    return suffix_of(Path(name)) in TABLES or Path(name).expanduser().is_dir()


def read_table(path: Path, *, named: bool = True) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yields (place, row) of a .jsonl (.json, .ndjson), .tsv, .csv, .parquet or .conllu file.

    All but .parquet may be compressed. A row of .conllu is a sentence, and its columns are lists with an entry for each
    word: words, upos, xpos, …; see `CONLLU`. Lines of contractions (2-3) and of empty nodes (3.1) are
    left out: the words of a contraction have lines of their own.

    Args:
        path: the file.
        named: whether the first line of .tsv and .csv names the columns; otherwise their names are numbers from 0.

    Raises:
        DataError: a file that cannot be read, is no table, names a column twice, or has rows with different columns.
    """
    kind = suffix_of(path)
    if kind == ".parquet":
        rows = _parquet_rows(path)
    elif kind in (".tsv", ".csv"):
        rows = _separated_rows(path, kind, named)
    elif kind == ".conllu":
        rows = _conllu_rows(path)
    elif kind in TABLES:
        rows = _json_rows(path)
    else:
        raise DataError(f"{path} is no table; tables are {', '.join(TABLES)}")
    return ((f"{path}, {'row' if kind == '.parquet' else 'line'} {number}", row) for number, row in rows)


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}, line {number}", "; each line must be an object")
        if not isinstance(row, Mapping):
            raise DataError(f"{path}, line {number} is not an object, but {line:.80}; each line must be one")
        yield number, row


def _conllu_rows(path: Path) -> Iterator[tuple[int, Mapping[str, list[str]]]]:
    sentence: list[list[str]] = []
    begin = 1
    for number, line in enumerate(chain(read_lines(path), [""]), start=1):
        if not line.strip():
            if sentence:
                yield begin, {name: [word[n] for word in sentence] for n, name in enumerate(CONLLU)}
            sentence, begin = [], number + 1
        elif not line.startswith("#"):
            fields = line.split("\t")
            if len(fields) != len(CONLLU):
                raise DataError(
                    f"{path}, line {number} has {counted(len(fields), 'field')}, not {len(CONLLU)} between tabs"
                )
            if fields[0].isdecimal():  # not 1-2, a contraction, nor 1.1, an empty node
                sentence.append(fields)


def parse_json(text: str, place: str, hint: str = "") -> Any:
    """Parses a JSON text.

    Args:
        text: the JSON.
        place: file and line, for messages.
        hint: appended to messages.

    Raises:
        DataError: invalid JSON, too many nested levels, or a duplicate key of an object.
    """
    try:
        found = json.loads(text, object_pairs_hook=partial(_unique_keys, place))
        if _SURROGATE.search(text):  # a lone surrogate, which cannot be encoded in UTF-8
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except DataError:
        raise
    except (ValueError, RecursionError) as error:  # also a number with more digits than Python reads
        reason = "its objects and lists are nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(f"{place} is not valid JSON: {reason}{hint}") from None


def _unique_keys(place: str, pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """Returns the pairs as a dict. A duplicate name would otherwise replace an earlier value silently.

    Raises:
        DataError: a duplicate name.
    """
    row = dict(pairs)
    if len(row) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        named = f"{twice!r}" if twice != "" else "a column without a name"
        raise DataError(
            f"{place}: {named} occurs {counts[twice]} times; give each column a different name, or remove it"
        )
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
                header = list(_unique_keys(f"{path}, line {number}", [(name, None) for name in fields]))
            elif header is not None and len(header) != len(fields):
                raise DataError(
                    f"{path}, line {number} has {counted(len(fields), 'column')}, the first line {len(header)}: "
                    f"{', '.join(header):.80}; the first line must name the columns, or give columns as numbers"
                )
            else:
                yield number, dict(zip(header, fields, strict=True)) if header else dict(enumerate(fields))
    except csv.Error as error:
        raise DataError(
            f"{path} is not valid CSV: {error} after line {number}; a closing quotation mark may be missing, and texts "
            f"of more than {csv.field_size_limit()} characters need a .jsonl file"
        ) from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as table:
            _unique_keys(str(path), [(name, None) for name in table.schema_arrow.names])
            number = 0
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except DataError:
        raise
    # For damaged files, Arrow raises its own exceptions, OSErrors, and Python's when it converts values.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is not a readable Parquet file: {reason:.300}") from error


def normalize_whitespace(text: str) -> str:
    """Removes whitespace at both ends and replaces every other run of whitespace by one space."""
    return " ".join(text.split())
