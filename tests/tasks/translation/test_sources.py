"""Pairs of sentences from files of every kind, each read as it was written, every mistake named by its place."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unrolled.training.data.base import DataError
from unrolled.training.data.options import SourceOptions
from unrolled.training.data.sources import Source
from unrolled_tasks.translation.sources import Pair, TextPairSource, source_of

PAIRS = [("Two men.", "Zwei Männer."), ('A "dog", barking', 'Ein "Hund", bellend'), ("I'm  here ", "Ich\u00a0bin hier")]
READ = [("Two men.", "Zwei Männer."), ('A "dog", barking', 'Ein "Hund", bellend'), ("I'm here", "Ich bin hier")]

Write = Callable[[str, Any], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(name: str, content: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return put


def lines(**columns: Any) -> str:
    """The pairs as JSON, a line each."""
    return "".join(json.dumps({"de": de, "id": 7, "en": en, **columns}) + "\n" for en, de in PAIRS)


def read(source: Any, split: str = "train") -> list[tuple[str, str]]:
    return [(pair.source, pair.target) for pair in source.read(split)]


def parquet(path: Path) -> str:
    import datasets

    datasets.Dataset.from_dict({"en": [en for en, _ in PAIRS], "de": [de for _, de in PAIRS]}).to_parquet(str(path))
    return str(path)


CSV = 'id,en,de\n1,Two men.,Zwei Männer.\r\n2,"A ""dog"", barking","Ein ""Hund"", bellend"\n\n'
CSV += "3,I'm  here ,Ich\u00a0bin hier\n"
TSV = "en\tde\n" + "\n".join("\t".join(pair) for pair in PAIRS)
NESTED = "".join(json.dumps({"translation": {"en": en, "de": de}}) + "\n\n" for en, de in PAIRS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", lines()),
        ("a.jsonl.gz", lines()),
        ("a.json", lines().replace("\n", "\r\n")),
        ("nested.jsonl", NESTED),
        ("a.csv", CSV),
        ("a.csv.gz", CSV),
        ("a.tsv", TSV),
        ("a.TSV.gz", TSV),
    ],
)
def test_a_table_is_read_row_by_row(write: Write, name: str, content: str) -> None:
    path = write(name, content)

    source = source_of(SourceOptions(files=path), "en", "de")

    assert read(source) == READ
    assert read(source_of(SourceOptions(files=path), "de", "en")) == [(de, en) for en, de in READ]


def test_parquet_is_read_row_by_row(tmp_path: Path) -> None:
    assert read(source_of(SourceOptions(files=parquet(tmp_path / "a.parquet")), "en", "de")) == READ


def test_columns_may_be_numbers_where_no_line_names_them(write: Write) -> None:
    path = write("deu.tsv", "".join(f"{number}\t{de}\t{en}\n" for number, (en, de) in enumerate(PAIRS)))

    assert read(source_of(SourceOptions(files=path), 2, 1)) == READ


def test_two_text_files_are_a_pair(write: Write) -> None:
    sides = [
        write("train.en", "\n".join(en for en, _ in PAIRS)),
        write("train.de.gz", "\n".join(de for _, de in PAIRS)),
    ]

    source = source_of(SourceOptions(files=sides, test_files=sides), "en", "de")

    assert isinstance(source, TextPairSource)
    assert source.splits == ("train", "test")
    assert read(source) == read(source, "test") == READ
    assert next(source.read("train")).place.endswith("train.en, line 1")


def test_files_of_a_folder_a_pattern_and_a_list_follow_one_another(write: Write, tmp_path: Path) -> None:
    write("b/2.tsv", TSV)
    write("b/1.jsonl.gz", lines())
    write("b/about.md", "no pairs")
    folder = str(tmp_path / "b")

    for files in (folder, [f"{folder}/1.jsonl.gz", f"{folder}/*.tsv"]):
        assert read(source_of(SourceOptions(files=files), "en", "de")) == READ + READ


def test_patterns_of_text_files_pair_file_by_file(write: Write, tmp_path: Path) -> None:
    for number in range(2):
        write(f"{number}.en", PAIRS[number][0])
        write(f"{number}.de", PAIRS[number][1])

    source = source_of(SourceOptions(files=[f"{tmp_path}/*.en", f"{tmp_path}/*.de"]), "en", "de")

    assert read(source) == READ[:2]
    write("2.en", "more")
    with pytest.raises(DataError, match=r"\*\.en and .*\*\.de match 3 and 2 files"):
        read(source)


def test_a_fingerprint_differs_when_a_file_does(write: Write) -> None:
    path = write("a.jsonl", lines())
    source = source_of(SourceOptions(files=path), "en", "de")
    first = source.fingerprint()

    assert source.fingerprint() == first
    assert source_of(SourceOptions(files=path), "de", "en").fingerprint() != first
    write("a.jsonl", lines() * 2)
    assert source.fingerprint() != first


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "a.jsonl",
            '{"en": "a", "fr": "b"}',
            r"a\.jsonl, line 1: no column 'de'; the columns are en, fr. Set data.target",
        ),
        ("a.jsonl", '{"English": "a", "dee": "b"}', r"no column 'en'; the columns are English, dee. Set data.source"),
        ("a.jsonl", '{"en": "a", "dee": "b"}', r"no column 'de'; did you mean dee\?"),
        ("a.jsonl", '\n{"en": "a", "de": 3}', r"line 2: column 'de' contains 3, not text"),
        ("a.jsonl", '{"en": "a"', r"a\.jsonl, line 1 is not valid JSON"),
        ("a.jsonl", '["a", "b"]', r"a\.jsonl, line 1 is not an object"),
        ("a.jsonl", "{}", r"no column 'en'; the columns are none"),
        ("a.tsv", "Go.\tGeh.\nRun.\tLauf.\n", r"line 2: no column 'en'; the columns are Go., Geh."),
        ("a.tsv", "en\tde\na\tb\tc\n", r"line 2 has 3 columns, the first line 2: en, de"),
        ("a.csv", 'en,de\n"a,b\n', r"a\.csv, line 2 has 1 column, the first line 2"),
        ("a.jsonl", '{"en": "é", "de": ""}'.encode("latin-1"), r"is not UTF-8: byte 8 is 0xe9 in line 1"),
        ("a.jsonl.gz", b"", r"a\.jsonl\.gz cannot be read"),
        ("a.parquet", b"PAR1 but no more", r"a\.parquet is not a readable Parquet file"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines().encode())[:-9])

    with pytest.raises(DataError, match=words):
        read(source_of(SourceOptions(files=str(path)), "en", "de"))


@pytest.mark.parametrize("name", ["table.tsv", "table.csv"])
def test_what_looks_like_a_number_or_nothing_is_still_text(write: Write, name: str) -> None:
    """Readers that guess types make 7.0 of 007, and nothing at all of NA."""
    separator = "\t" if name.endswith("tsv") else ","
    cells = [("007", "1.50"), ("NA", "null"), ("None", "nan"), ("2024-01-05", "TRUE")]
    path = write(name, "\n".join(separator.join(row) for row in [("en", "de"), *cells]))

    assert read(source_of(SourceOptions(files=path), "en", "de")) == cells
    rows = write("dates.jsonl", "".join(json.dumps({"en": en, "de": de}) + "\n" for en, de in cells))
    assert read(source_of(SourceOptions(files=rows), "en", "de")) == cells


def test_text_files_of_unequal_length_are_refused_with_both_numbers(write: Write) -> None:
    source = source_of(SourceOptions(files=[write("a.en", "1\n2\n3\n"), write("a.de", "1\n2")]), "en", "de")

    with pytest.raises(DataError, match=r"a\.en has 3 and .*a\.de has 2 lines"):
        read(source)


@pytest.mark.parametrize("files", ["a.en", ["a.en", "b.jsonl"], ["a", "b", "c"]])
def test_files_that_are_neither_tables_nor_a_pair_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.en", "b.jsonl", "a", "b", "c"):
        (tmp_path / name).touch()

    with pytest.raises(DataError, match=r"tables \(\.jsonl, .*\) or two text files, as \[train\.en, train\.de\]"):
        source_of(SourceOptions(files=files), "en", "de")


def hub(folder: Path, **options: Any) -> Source[Pair]:
    options = {"cache_dir": str(folder.parent / "arrow"), **options}
    return source_of(SourceOptions(dataset=str(folder), dataset_options=options), "en", "de")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_with_a_column_translation(write: Write, tmp_path: Path, streaming: bool) -> None:
    for split in ("train", "validation", "test"):
        write(f"set/{split}.jsonl", NESTED.replace("\n\n", "\n"))

    source = hub(tmp_path / "set", streaming=streaming)

    assert source.splits == ("train", "validation", "test")
    assert all(read(source, split) == READ for split in source.splits)
    assert source.fingerprint() == hub(tmp_path / "set", streaming=streaming).fingerprint()


def test_a_data_set_with_a_column_for_each_language_and_splits_of_other_names(write: Write, tmp_path: Path) -> None:
    files = {name: write(f"{name}.jsonl", lines(image="big")) for name in ("training", "dev")}

    source = source_of(
        SourceOptions(
            dataset="json", dataset_options={"data_files": files, "splits": {"train": "training", "validation": "dev"}}
        ),
        "en",
        "de",
    )

    assert source.splits == ("train", "validation")
    assert read(source, "validation") == READ
    with pytest.raises(DataError, match=r"data set json, train row 1: no column 'fr'; the columns are en"):
        read(
            source_of(
                SourceOptions(dataset="json", dataset_options={"data_files": files, "splits": {"train": "dev"}}),
                "en",
                "fr",
            )
        )


def test_a_data_set_that_was_saved_to_disk(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"translation": {"en": en, "de": de}} for en, de in PAIRS])
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "saved"))

    source = source_of(SourceOptions(dataset=str(tmp_path / "saved")), "en", "de")

    assert source.splits == ("train", "test")
    assert next(source.read("test")) == Pair(*READ[0], "", f"data set {tmp_path / 'saved'}, test row 1")


def test_a_data_set_that_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match="cannot load data set 'json' with"):
        source_of(
            SourceOptions(dataset="json", dataset_options={"data_files": "/nowhere/*.jsonl"}), "en", "de"
        ).fingerprint()
