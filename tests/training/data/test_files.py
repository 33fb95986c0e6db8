"""Files in pieces: whatever their line ends, their compression and where a piece is cut."""

import bz2
import glob
import gzip
import lzma
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unrolled.training.data import files
from unrolled.training.data.base import DataError
from unrolled.training.data.files import did_you_mean, find_files, read_lines, read_text, suffix_of

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


# With names of their own: the hour in an archive would be split of a name, and processes must collect the same tests.
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
    with pytest.raises(DataError, match=r"contains no \.tsv file"):
        find_files(str(tmp_path), suffixes=(".tsv",))


def test_the_nearest_name_is_a_question() -> None:
    assert did_you_mean("targt", ["source", "target"]) == "; did you mean target?"
    assert did_you_mean("x", ["source", 3]) == ""


def test_a_long_line_is_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PIECE", 500)
    lines = ["a" * 20_000_000, "b", "", "c" * 1_000_000]
    (tmp_path / "a.txt").write_text("\n".join(lines))

    began = time.process_time()
    found = list(read_lines(tmp_path / "a.txt"))

    assert found == lines
    assert time.process_time() - began < 10  # joined anew with each of the 42,000 pieces, it takes minutes


PATTERNS = [
    "**",
    "**/*",
    "**/*.txt",
    "*/**",
    "a/**/*.txt",
    "**/b/*",
    "**/**/c.txt",
    "[ab]/**/d*",
    "**/b/**",
    "*.txt",
    "[!x]*",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("absolute", [True, False])
def test_patterns_match_what_globs_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, absolute: bool
) -> None:
    for name in ("c.txt", "a/c.txt", "a/b/c.txt", "a/b/b/d.txt", "b/a/d.md", ".hidden/c.txt", "a/.c.txt", "a[1]/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    pattern = str(tmp_path / pattern) if absolute else pattern
    expected = {Path(name).resolve() for name in glob.glob(pattern, recursive=True) if Path(name).is_file()}  # noqa: PTH207

    assert expected
    assert set(find_files(pattern)) == expected


def test_a_folder_with_links_to_itself_is_visited_once(tmp_path: Path) -> None:
    below = tmp_path / "one" / "two"
    below.mkdir(parents=True)
    (below / "x.txt").write_text("")
    for number, place in enumerate([tmp_path, tmp_path / "one", below] * 4):
        (place / f"link{number}").symlink_to((tmp_path, tmp_path / "one", below)[number // 4])
    (tmp_path / "nowhere").symlink_to("nowhere")

    began = time.process_time()
    found = [find_files(str(tmp_path / pattern)) for pattern in ("", "**/*.txt", "**/two/**", "**/link*/**/x.txt")]

    assert found == [[below / "x.txt"]] * 4
    assert time.process_time() - began < 5
    with pytest.raises(DataError, match="no file or folder"):
        find_files(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody_has_this_name/x.txt"])
def test_a_path_that_cannot_be_looked_at_is_named(name: str) -> None:
    with pytest.raises(DataError, match=rf"{name[:20]}.* cannot be read"):
        find_files(name)
