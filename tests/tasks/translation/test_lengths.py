"""The table by length comes back as it was written, and pictures compare what can be compared."""

from pathlib import Path
from typing import Any

import pytest

from unrolled_tasks.translation.lengths import draw_lengths, main, read_lengths, write_lengths

ROWS = [("1–5", 12, 41.25), ("6–10", 1300, 38.5), ("over 40", 3, 9.0)]


def test_a_table_comes_back_and_has_its_picture(tmp_path: Path) -> None:
    write_lengths(ROWS, tmp_path)

    assert read_lengths(tmp_path) == ROWS
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")


def test_runs_stand_side_by_side() -> None:
    other = [(name, count, score - 5) for name, count, score in ROWS]

    axes = draw_lengths({"additive": ROWS, "none": other}).axes[0]

    heights = [bar.get_height() for bar in axes.patches]
    assert heights == [score for rows in (ROWS, other) for _, _, score in rows]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1–5\n(12)", "6–10\n(1,300)", "over 40\n(3)"]
    centres = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
    assert all(centres[place] < place < centres[place + 3] for place in range(3))


def test_the_command_draws_and_says_what_it_lacks(tmp_path: Path, capsys: Any) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    write_lengths(ROWS, tmp_path / "one")
    write_lengths(ROWS[:2], tmp_path / "two")
    picture = tmp_path / "both.png"

    assert main([f"a={tmp_path / 'one'}", f"b={tmp_path / 'one'}", str(picture)]) == 0
    assert picture.is_file()
    for arguments, message in (
        ([f"a={tmp_path}", str(picture)], "there is no lengths.csv"),
        ([f"a={tmp_path / 'one'}", f"b={tmp_path / 'two'}", str(picture)], "different sentences"),
        ([str(picture)], "usage"),
        ([f"a={tmp_path / 'one'}", "picture.pdf"], "usage"),
        (["nameless", str(picture)], "usage"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"there is no lengths\.csv"):
        read_lengths(tmp_path)
