"""A prepared folder: whole or not there, made once however many ask."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from unrolled.training.data.cache import cache_folder, cached, get_or_create


def test_a_folder_is_made_once_by_all_who_ask(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.05)
        (folder / "data").write_text("whole")

    with ThreadPoolExecutor(4) as threads:
        found = list(
            threads.map(lambda _: (get_or_create(tmp_path / "cache" / "x", make) / "data").read_text(), range(4))
        )

    assert found == ["whole"] * 4
    assert len(made) == 1


def test_after_an_error_nothing_is_there_and_the_next_one_makes_it(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "data").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get_or_create(tmp_path / "x", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["x.lock"]

    (tmp_path / ".x.partial").mkdir()  # as a killed process leaves it
    (tmp_path / ".x.partial" / "rest").touch()
    get_or_create(tmp_path / "x", lambda folder: (folder / "data").touch())
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["data", "digests.json"]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "digests"])
def test_a_damaged_folder_is_made_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    def make(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "data").write_bytes(bytes(range(256)))

    data = get_or_create(tmp_path / "x", make) / "inner" / "data"
    content = bytearray(data.read_bytes())
    if damage == "flip":
        content[100] ^= 4
        data.write_bytes(content)
    elif damage == "cut":
        data.write_bytes(content[:-1])
    elif damage == "remove":
        data.unlink()
    else:
        (tmp_path / "x" / "digests.json").write_text("{")

    get_or_create(tmp_path / "x", make)

    assert data.read_bytes() == bytes(range(256))
    assert "created again" in caplog.text


def test_the_given_folder_comes_before_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNROLLED_CACHE", "/from/environment")
    assert cache_folder("~/mine") == Path.home() / "mine"
    assert cache_folder(None) == Path("/from/environment")
    monkeypatch.delenv("UNROLLED_CACHE")
    assert cache_folder(None) == Path.home() / ".cache" / "unrolled"


def test_prepared_data_are_made_once_for_each_key(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> dict[str, object]:
        made.append(folder)
        (folder / "data").write_text(str(len(made)))
        return {"name": "é", "count": len(made)}

    first = cached(tmp_path, "pairs", {"a": 1, "b": [2]}, make)
    again = cached(tmp_path, "pairs", {"b": [2], "a": 1}, make)
    other = cached(tmp_path, "pairs", {"a": 1, "b": [3]}, make)

    assert (first.about, again, len(made)) == ({"name": "é", "count": 1}, first, 2)
    assert first.folder.name.startswith("pairs-")
    assert first.folder != other.folder
    assert ((first.folder / "data").read_text(), other.about["count"]) == ("1", 2)
