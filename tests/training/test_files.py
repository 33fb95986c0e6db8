"""Files in pieces: whatever their line ends, their compression and where a piece is cut."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from unrolled.training import files
from unrolled.training.data import DataError
from unrolled.training.files import find_files, nearest, read_lines, read_text, suffix_of

TEXT = "one\ntwo, é€\n\nfour"


@pytest.mark.parametrize("piece", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".XZ", lzma.compress)]
)
def test_a_packed_text_is_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(files, "_PIECE", piece)
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(pack(TEXT.encode()))

    assert "".join(read_text(path)) == TEXT
    assert list(read_lines(path)) == ["one", "two, é€", "", "four"]
    assert suffix_of(path) == ".txt"


@pytest.mark.parametrize(
    ("content", "lines"), [("", []), ("\n", [""]), ("a\r\nb\r", ["a", "b"]), ("a\u2028b", ["a\u2028b"])]
)
def test_lines_end_where_a_line_ends(tmp_path: Path, content: str, lines: list[str]) -> None:
    (tmp_path / "a.txt").write_bytes(content.encode())

    assert list(read_lines(tmp_path / "a.txt")) == lines


@pytest.mark.parametrize("piece", [1, 4, 100])
def test_bytes_that_are_no_text_are_named_with_their_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(files, "_PIECE", piece)
    path = tmp_path / "a.txt"
    path.write_bytes("one\ntwo\ncafé".encode("latin-1"))

    with pytest.raises(DataError, match=r"a\.txt is not UTF-8: byte 11 is 0xe9 in line 3 .*iconv"):
        list(read_lines(path))


# With names of their own: the hour in an archive would be part of a name, and processes must collect the same tests.
@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(TEXT.encode() * 50)[:-9]], ids=["none", "cut off"])
def test_a_broken_archive_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt.gz").write_bytes(content)

    with pytest.raises(DataError, match=r"a\.txt\.gz cannot be read: "):
        list(read_text(tmp_path / "a.txt.gz"))


def test_a_folder_is_searched_for_the_suffixes_packed_or_not(tmp_path: Path) -> None:
    for name in ("b.csv.gz", "a.csv", "c.txt", "below/d.CSV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    found = find_files([str(tmp_path), str(tmp_path / "a.csv")], suffixes=(".csv", ".tsv"))

    assert [path.name for path in found] == ["a.csv", "b.csv.gz", "d.CSV"]
    with pytest.raises(DataError, match=r"holds no \.tsv file"):
        find_files(str(tmp_path), suffixes=(".tsv",))


def test_the_nearest_name_is_a_question() -> None:
    assert nearest("targt", ["source", "target"]) == "; did you mean target?"
    assert nearest("x", ["source", 3]) == ""
