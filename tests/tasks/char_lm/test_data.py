"""Text on its way from a source to windows: nothing lost, nothing read twice, and every mistake named."""

import json
import logging
import os
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled.processing.text.tokenizers import ByteTokenizer, CharacterTokenizer
from unrolled.processing.transform import Processor
from unrolled.training.data import files as text_files
from unrolled.training.data.base import DataError
from unrolled.training.data.loader import PlannedLoader
from unrolled_tasks.char_lm import TextData

ALPHABET = "abcdefghij klmno\n"

HOSTILE = {"source": {"_target_": "os.system"}, "target": None}


def text_of(size: int) -> str:
    numbers = torch.randint(len(ALPHABET), (size,), generator=torch.Generator().manual_seed(0))
    return "".join(ALPHABET[number] for number in numbers.tolist())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return tmp_path / "cache"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], str]:
    def put(name: str, content: str | bytes) -> str:
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return put


def small(**options: Any) -> TextData:
    data = TextData(**{"batch_size": 2, "window": 8, **options})
    data.prepare()
    return data


def contents(data: TextData) -> dict[str, str]:
    """Each split's counted predictions as text, row after row."""
    read = {"train": [data.train_dataloader()], "validation": data.val_dataloader(), "test": data.test_dataloader()}
    return {split: whole(loaders, data) for split, loaders in read.items() if loaders}


def whole(loaders: Any, data: TextData) -> str:
    loader = loaders if isinstance(loaders, PlannedLoader) else loaders[0]
    rows = [[] for _ in range(-(-loader.plan.rows // loader.plan.ranks))]
    for window in loader:
        for row, targets in enumerate(rows):
            targets.extend(window.targets[row][window.loss_mask[row]].tolist())
    return "".join(data.tokenizer.decode(targets) for targets in rows)


def test_parts_are_cut_by_position_and_read_whole(write: Callable[..., str]) -> None:
    text = text_of(1000)

    data = small(files=write("one.txt", text), split_fractions=(0.7, 0.2, 0.1))

    assert contents(data) == {"train": text[:700], "validation": text[700:900], "test": text[900:]}
    assert data.sizes() == {"vocabulary": len(ALPHABET) + 2}
    assert data.report().startswith("vocabulary of 19 characters\ntrain: 700 characters in 1 document\n")


def test_joined_documents_are_cut_as_one_text(write: Callable[..., str]) -> None:
    text = text_of(900)
    for split in range(3):
        write(f"{split}.txt", text[split * 300 : (split + 1) * 300])

    data = small(files=str(Path(write("0.txt", text[:300])).parent), split_fractions=(0.5, 0.25, 0.25))

    assert contents(data) == {"train": text[:450], "validation": text[450:675], "test": text[675:]}


def test_documents_that_are_not_joined_are_cut_whole(write: Callable[..., str]) -> None:
    files = [write(f"{split}.txt", text_of(size)) for split, size in enumerate((300, 290, 200, 110, 100))]

    data = small(files=files, concatenate=False, split_fractions=(0.6, 0.2, 0.2))

    assert [len(text) for text in contents(data).values()] == [590, 200, 210]
    assert data.train_dataloader().plan.num_batches == -(-300 // 8)
    assert data.test_dataloader()[0].plan.rows == 2


def test_too_few_whole_documents_are_refused(write: Callable[..., str]) -> None:
    files = [write(f"{split}.txt", text_of(100)) for split in range(3)]

    with pytest.raises(DataError, match=r"3 documents of 300 characters .* left for validation; set concatenate"):
        small(files=files, concatenate=False)


def test_parts_with_text_of_their_own_take_no_share(write: Callable[..., str]) -> None:
    text = text_of(950)

    data = small(files=write("a.txt", text), test_files=write("b.txt", text[:99]), split_fractions=(0.9, 0.05, 0.05))

    assert contents(data) == {"train": text[:900], "validation": text[900:], "test": text[:99]}


def test_a_part_without_share_is_left_out(write: Callable[..., str]) -> None:
    data = small(files=write("a.txt", text_of(100)), split_fractions=(1, 0, 0))

    assert data.val_dataloader() == data.test_dataloader() == []


def test_folders_patterns_and_lists_are_read_sorted_and_once(write: Callable[..., str], tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "a.md", "c/d.txt"):
        write(name, Path(name).stem * 10)
    texts = tmp_path / "texts"

    def order(*files: str) -> str:
        text = contents(small(files=[str(texts / name) for name in files], split_fractions=(1, 0, 0), window=1))[
            "train"
        ]
        return text[::10]

    assert order("") == "abd"
    assert order("", "b.txt") == "abd"
    assert order("*.txt") == "ab"
    assert order("**/*.txt") == "abd"
    assert order("*") == "aab"
    assert order("c", "b.txt", "a.md") == "dba"


def test_line_ends_and_byte_order_marks_are_made_alike(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "_PIECE", 1)
    path = write("a.txt", b"\xef\xbb\xbfone\r\ntwo\rthree\n\xc3\xa9\xe2\x82\xac\r")

    assert "".join(text_files.read_text(Path(path))) == "one\ntwo\nthree\né€\n"


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("content", "place", "value"),
    [(b"abc\xff", 3, "0xff"), ("aé".encode() + b"\xe9 ok", 3, "0xe9"), ("€€".encode()[:-1], 3, "0xe2")],
)
def test_undecodable_bytes_are_named_with_their_place(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch, piece: int, content: bytes, place: int, value: str
) -> None:
    monkeypatch.setattr(text_files, "_PIECE", piece)
    path = write("latin.txt", content)

    with pytest.raises(DataError, match=rf"latin\.txt is not UTF-8: byte {place} is {value} .*iconv"):
        small(files=path)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("{}/nothing/*.txt", "no file matches"),
        ("{}/texts/on.txt", "no file or folder .*did you mean one.txt"),
        ("{}/texts/markdown", r"contains no \.txt file; give a pattern"),
        ("{}/texts/empty.txt", "text is empty"),
        ([], "the list is empty"),
    ],
)
def test_files_that_are_not_there_are_named(write: Callable[..., str], tmp_path: Path, files: Any, words: str) -> None:
    write("one.txt", "text")
    write("markdown/a.md", "text")
    write("empty.txt", "")

    with pytest.raises(DataError, match=words):
        small(files=files.format(tmp_path) if isinstance(files, str) else files)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "exactly one of files, dataset, shakespeare for text; got none"),
        ({"files": "a", "shakespeare": True}, "got files and shakespeare"),
        ({"shakespeare": True, "test_files": "a"}, "need files"),
        ({"shakespeare": True, "dataset_options": {"name": "x"}}, "need dataset"),
        ({"files": "a", "unit": "charcter"}, "did you mean character"),
        ({"files": "a", "min_count": 2}, "need unit=word"),
        ({"files": "a", "split_fractions": (0.9, 0.2, 0.1)}, "sum to 1"),
        ({"files": "a", "split_fractions": (1, 0)}, "three fractions"),
        ({"files": "a", "batch_size": 0}, "at least 1"),
        ({"files": "a", "random_windows": {"length": 3}}, "length, count and batch_size"),
        (
            {"files": "a", "random_windows": {"length": 3, "count": 1, "batch_size": 1}, "concatenate": False},
            "concatenate",
        ),
        ({"files": "a", "window": 8, "stride": 9}, "stride must be at most window"),
        ({"files": "a", "random_length": True, "shift": True}, "remove shift"),
        (
            {"files": "a", "processor_from": HOSTILE},
            "outside the trusted",
        ),
        ({"dataset": "a", "dataset_options": {"splits": {"training": "x"}}}, "splits names"),
    ],
)
def test_options_without_sense_are_refused_before_any_text_is_read(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TextData(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 101}, "90 tokens is shorter than window=101"),
        (
            {"batch_size": 12},
            "too short for batch_size=12 on 1 process and window=8: 12 streams of at least a window need 96 tokens; "
            "lower batch_size to at most 11 or window to at most 7",
        ),
        (
            {"concatenate": False, "split_fractions": (1, 0, 0)},
            "text of 1 document .* batch_size to at most 1, or set concatenate",
        ),
        (
            {"random_windows": {"length": 5, "count": 1, "batch_size": 1}},
            "random_windows.length=5 needs a test text of more than 5",
        ),
        ({"split_fractions": (0, 0.5, 0.5)}, "gives none"),
    ],
)
def test_too_little_text_is_refused_with_numbers_and_a_remedy(
    write: Callable[..., str], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        small(files=write("a.txt", text_of(100)), **options)


def test_the_vocabulary_is_that_of_training_and_the_rest_is_counted_and_reported(
    write: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        data = small(files=write("a.txt", "ab" * 45 + "abxya" + "ababz"))

    assert data.tokenizer.to_dict()["characters"] == "ab"
    assert "validation: 5 characters in 1 document, 2 of them (40.000%) unknown" in data.report()
    assert "test: 5 characters in 1 document, 1 of them (20.000%) unknown" in data.report()
    assert [record.getMessage() for record in caplog.records] == [data.report()]


@pytest.mark.parametrize("tokenizer", [CharacterTokenizer("ba"), ByteTokenizer()])
def test_a_given_tokenizer_encodes_any_text_without_training(write: Callable[..., str], tokenizer: Any) -> None:
    data = small(
        files=write("a.txt", "abcab"), split_fractions=(0, 0, 1), processor_from=Processor(tokenizer).to_dict()
    )

    assert data.tokenizer.to_dict() == tokenizer.to_dict()
    assert next(iter(data.test_dataloader()[0])).targets[0].tolist() == tokenizer.encode("abcab")
    with pytest.raises(DataError, match="no training text"):
        data.train_dataloader()


def test_a_text_too_short_to_train_on_can_be_scored(write: Callable[..., str]) -> None:
    data = small(
        files=write("a.txt", text_of(100)),
        processor_from=Processor(ByteTokenizer()).to_dict(),
        window=64,
        split_fractions=(0.5, 0, 0.5),
    )

    assert len(contents_of_test := whole(data.test_dataloader(), data)) == 50
    assert contents_of_test == text_of(100)[50:]
    with pytest.raises(DataError, match="50 tokens is shorter than window=64"):
        data.train_dataloader()


def test_text_is_encoded_once_and_again_when_it_or_its_options_change(
    write: Callable[..., str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.txt", text_of(200))
    encoded = []
    original = TextData._encode
    monkeypatch.setattr(TextData, "_encode", lambda self, folder: encoded.append(folder) or original(self, folder))

    small(files=path), small(files=path, window=4, seed=3)
    assert len(encoded) == 1

    small(files=path, unit="byte"), small(files=path, split_fractions=(0.8, 0.1, 0.1))
    write("a.txt", text_of(201))
    os.utime(path, ns=(0, 0))
    data = small(files=path)
    assert len(encoded) == 4
    assert sum(map(len, contents(data).values())) == 201


def test_half_encoded_text_is_never_seen(write: Callable[..., str], cache: Path) -> None:
    path = write("a.txt", text_of(300).encode() + b"\xff")
    with pytest.raises(DataError, match="byte 300"):
        small(files=path)

    assert [entry.name for entry in cache.iterdir() if entry.suffix != ".lock"] == []


def test_processes_that_prepare_at_once_encode_once(write: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("a.txt", text_of(20_000))
    encoded = []
    original = TextData._encode
    monkeypatch.setattr(TextData, "_encode", lambda self, folder: encoded.append(folder) or original(self, folder))

    with ThreadPoolExecutor(4) as threads:
        reports = list(threads.map(lambda _: small(files=path).report(), range(4)))

    assert len(encoded) == len(set(reports)) == 1


def test_memory_does_not_grow_with_the_text(write: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "_PIECE", 1 << 14)

    def peak(size: int) -> int:
        path = write(f"{size}.txt", text_of(1000) * (size // 1000))
        tracemalloc.start()
        small(files=path)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(100_000)  # what is loaded on first use is not the text's

    assert peak(2_000_000) < peak(200_000) + 200_000


def test_asking_before_preparing_is_refused() -> None:
    with pytest.raises(RuntimeError, match="call prepare"):
        TextData(files="a").sizes()


@pytest.fixture
def rows() -> list[str]:
    return [text_of(90 + number) for number in range(10)]


@pytest.mark.parametrize("builder", ["text", "json", "parquet"])
def test_rows_of_a_data_set_are_documents(
    tmp_path: Path, write: Callable[..., str], rows: list[str], builder: str
) -> None:
    import datasets

    rows = [row.replace("\n", "") for row in rows]
    lines = "\n".join(rows) if builder == "text" else "\n".join(json.dumps({"body": row, "n": 1}) for row in rows)
    path = write(f"rows.{builder}", lines)
    if builder == "parquet":
        datasets.Dataset.from_dict({"body": rows, "n": [1] * 10}).to_parquet(path)
    options = {"data_files": path, "cache_dir": str(tmp_path / "arrow")} | (
        {} if builder == "text" else {"column": "body"}
    )

    data = small(dataset=builder, dataset_options=options, split_fractions=(0.8, 0.1, 0.1))

    assert "".join(contents(data).values()) == "".join(row + "\n" for row in rows)
    # Kept apart, they are documents.
    apart = small(dataset=builder, dataset_options=options, split_fractions=(0.8, 0.1, 0.1), concatenate=False)
    assert "8 documents" in apart.report()


def test_splits_of_a_data_set_are_its_parts(tmp_path: Path, write: Callable[..., str], rows: list[str]) -> None:
    files = {name: write(f"{name}.txt", row.replace("\n", "")) for name, row in zip("abc", rows, strict=False)}
    options = {"data_files": files, "cache_dir": str(tmp_path / "arrow"), "separator": ""}

    data = small(dataset="text", dataset_options={**options, "splits": {"train": "a", "validation": "b", "test": "c"}})
    assert contents(data) == {
        split: rows[number].replace("\n", "") for number, split in enumerate(("train", "validation", "test"))
    }

    for splits, words in (({"train": "A"}, "no split 'A'; it has a, b, c"), (None, "no split 'train'; it has a, b, c")):
        with pytest.raises(DataError, match=words):
            small(dataset="text", dataset_options={**options, "splits": splits})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no column 'text'; the columns are body, n. Set dataset_options.column"),
        ({"column": "bod"}, "did you mean body"),
        ({"column": "n"}, "contains .*, not text"),
        ({"no_such_option": 1}, "cannot load data set 'json'"),
        ({"data_files": "/nowhere/*.json"}, "cannot load data set 'json'"),
    ],
)
def test_a_data_set_without_that_text_is_refused(
    tmp_path: Path, write: Callable[..., str], options: dict[str, Any], words: str
) -> None:
    path = write("rows.json", json.dumps({"body": "text", "n": 1}))

    with pytest.raises(DataError, match=words):
        small(dataset="json", dataset_options={"data_files": path, "cache_dir": str(tmp_path / "arrow"), **options})


def test_shakespeare_is_one_text_by_default() -> None:
    data = TextData(shakespeare=True)
    data.prepare()

    assert data.sizes() == {"vocabulary": 79}
    assert "train: 4,498,4" in data.report()
    assert len(data.val_dataloader()) == 62
    assert next(iter(data.test_dataloader()[0])).inputs.shape == (1, 128)


def test_windows_at_random_places_are_a_second_test(write: Callable[..., str]) -> None:
    data = small(files=write("a.txt", text_of(2000)), random_windows={"length": 16, "count": 10, "batch_size": 4})

    windows = list(data.test_dataloader()[1])

    assert sum(int(window.loss_mask.sum()) for window in windows) == 160
    assert [window.inputs.shape for window in windows] == [(4, 16)] * 3
