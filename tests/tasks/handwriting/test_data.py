"""Lines of handwriting from files of every kind, and what is wrong with them."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from unrolled import CharacterTokenizer, Processor, StrokeTransform
from unrolled.training.data.base import DataError
from unrolled.training.data.buckets import BatchSpec
from unrolled_tasks.handwriting import HandwritingData
from unrolled_tasks.handwriting.hershey import FONTS, hershey_rows

TEXTS = ["ab a", "ba b", "aab", "bba"] * 5
LETTERS = {"a": [[[0, 0], [1, 2], [2, 0]]], "b": [[[0, 4], [0, 0]], [[0, 1], [1, 0]]], " ": []}
FORM = "OCR:\n\nwrong text\n\nCSR:\n\nfirst line\nsecond line\n"


def strokes(text: str) -> list[list[list[float]]]:
    return [[[x + 3.0 * n, y] for x, y in stroke] for n, c in enumerate(text) for stroke in LETTERS[c]]


def written(folder: Path, kind: str) -> dict[str, Any]:
    rows = [{"text": text, "strokes": strokes(text)} for text in TEXTS]
    if kind == "hub":
        datasets.Dataset.from_list(rows).save_to_disk(folder / "x")
        return {"dataset": str(folder / "x")}
    if kind == "parquet":
        datasets.Dataset.from_list(rows).to_parquet(folder / "x.parquet")
        return {"files": str(folder / "x.parquet")}
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {"files": str(folder / "x.jsonl")}


def xml(points: list[list[list[float]]]) -> str:
    lines = ['<?xml version="1.0" encoding="ISO-8859-1"?>', "<WhiteboardCaptureSession>", "<StrokeSet>"]
    for stroke in points:
        lines.append('<Stroke colour="black" start_time="0" end_time="1">')
        lines += [f'<Point x="{x:g}" y="{y:g}" time="0.1"/>' for x, y in stroke]
        lines.append("</Stroke>")
    return "\n".join([*lines, "</StrokeSet>", "</WhiteboardCaptureSession>", ""])


@pytest.fixture
def iam(tmp_path: Path) -> Path:
    """The folders of the database, with one form of two lines."""
    lines, texts = tmp_path / "lineStrokes/a01/a01-000", tmp_path / "ascii/a01/a01-000"
    lines.mkdir(parents=True)
    texts.mkdir(parents=True)
    (texts / "a01-000u.txt").write_text(FORM)
    for number in (1, 2):
        (lines / f"a01-000u-0{number}.xml").write_text(xml([*strokes("ab"), [[9.5, number]]]))
    return tmp_path / "lineStrokes"


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "hub"])
def test_tables_and_sets_are_read_alike(kind: str, tmp_path: Path) -> None:
    data = HandwritingData(**written(tmp_path, kind), split_fractions=(0.5, 0.25, 0.25), batch_size=4)
    data.prepare()

    assert data.sizes() == {"vocabulary": 5, "features": 3}
    assert data.describe().startswith("train 10, validation 5, test 5 lines with 2")
    assert data.lines("test", 2)[0].text == TEXTS[15]
    assert data.example(tmp_path) == TEXTS[15]
    batch = data.batch("train", BatchSpec(np.array([0, 2]), 0), 0.5, scored=True)
    transform: Any = data.processor().target
    for row, text in enumerate(("ab a", "aab")):
        frames = transform.encode(strokes(text))
        length = int(batch.lengths[row])
        assert length == len(frames) - 1
        assert batch.inputs[row, :length].equal(frames[:-1])
        assert batch.targets[row, :length].equal(frames[1:])
        assert not batch.targets[row, length:].any()
    tokenizer: Any = data.processor().source
    assert batch.source is not None
    assert tokenizer.decode(batch.source[0].tolist()) == "ab a"
    assert data.examples("train", scored=False).counts[0] == len(transform.encode(strokes("ab a"))) - 1


def test_lines_of_iam_have_their_strokes_and_texts(iam: Path) -> None:
    data = HandwritingData(files=str(iam), split_fractions=(1, 0, 0), batch_size=2)
    data.prepare()

    one, two = data.lines("train", 5)
    assert (one.text, two.text) == ("first line", "second line")
    assert two.strokes == [*([(x, y) for x, y in stroke] for stroke in strokes("ab")), [(9.5, 2.0)]]


def test_for_prediction_no_text_is_read(iam: Path) -> None:
    (iam.parent / "ascii/a01/a01-000/a01-000u.txt").unlink()
    data = HandwritingData(files=str(iam), split_fractions=(1, 0, 0), batch_size=2, mode="prediction")
    data.prepare()

    assert isinstance(data.processor().source, StrokeTransform)
    assert data.processor().target is None
    assert data.batch("train", BatchSpec(np.array([0]), 0), 1.0, scored=False).source is None
    assert data.sizes()["vocabulary"] == 0


def test_longer_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    points = [sum(map(len, strokes(text))) for text in TEXTS[:4]]
    data = HandwritingData(**written(tmp_path, "jsonl"), max_points=min(points), batch_size=2)
    data.prepare()

    kept = 5 * points.count(min(points))
    assert f"; {20 - kept} left out" in data.describe()
    with pytest.raises(DataError, match="no line is left with max_points=1"):
        HandwritingData(**written(tmp_path, "jsonl"), max_points=1, batch_size=2).prepare()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "strokes": [[[0, math.nan], [1, 1]]]}, r"line 2: stroke 1, point 1 is \[0, nan\]; expected two"),
        ({"text": "a", "strokes": []}, "line 2: there are no strokes"),
        ({"text": "a", "strokes": [[]]}, "line 2: stroke 1 has no points"),
        ({"text": "a", "strokes": [[[1, 1]]]}, "line 2: one point is no line"),
        ({"text": "", "strokes": strokes("a")}, "line 2: the text is empty"),
        ({"text": 3, "strokes": strokes("a")}, "line 2: column 'text' contains 3, not text"),
        ({"text": "a"}, "line 2: no column 'strokes'; the columns are text. Set data.strokes"),
        ({"strokes": strokes("a")}, "line 2: no column 'text'.*Set data.text"),
        ({"text": "a", "strokes": [[[0, 0], [1e300, 0]], [[-1e300, 1]]]}, "line 2: two points are too far apart"),
    ],
)
def test_a_broken_line_is_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = [{"text": "ab", "strokes": strokes("ab")}, row, {"text": "b", "strokes": strokes("b")}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    transform = Processor(CharacterTokenizer("ab"), StrokeTransform(1.0)).to_dict()

    with pytest.raises(DataError, match=rf"x\.jsonl, {message}"):
        HandwritingData(
            files=str(tmp_path / "x.jsonl"), split_fractions=(1, 0, 0), batch_size=2, processor_from=transform
        ).prepare()


def test_a_character_that_training_lacks_is_named(tmp_path: Path) -> None:
    rows = [{"text": text, "strokes": strokes("ab")} for text in ["ab", "b", "açb"]]
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    data = HandwritingData(files=str(tmp_path / "x.jsonl"), split_fractions=(0.67, 0, 0.33), batch_size=2)

    with pytest.raises(DataError, match=r"x\.jsonl, line 3: 'ç' in 'açb' is in no training line"):
        data.prepare()


def test_lines_that_cannot_be_used_may_be_skipped(tmp_path: Path) -> None:
    rows = [{"text": text, "strokes": strokes("ab")} for text in ["ab", "b", "", "a", "ç"]]
    rows[1]["strokes"] = [[[0, math.inf]]]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = HandwritingData(
        files=str(tmp_path / "x.jsonl"), split_fractions=(0.6, 0, 0.4), batch_size=2, on_error="skip"
    )
    data.prepare()

    assert [line.text for split in ("train", "test") for line in data.lines(split, 9)] == ["ab", "a"]
    assert "; 3 left out" in data.describe()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<Stroke><Point x='1' y='2'/></Strok>", "line 1 is not valid XML: mismatched tag"),
        ("<a>\n<Stroke>\n<Point x='one' y='2'/></Stroke></a>", 'line 3: <Point x="one" y="2"> is no point'),
        ("<a>\n<Point x='1' y='2'/></a>", 'line 2: <Point x="1" y="2"> is no point of a stroke'),
        ("<a><Stroke>\n<Point x='1'/></Stroke></a>", 'line 2: <Point x="1"> is no point'),
        ("<a></a>", "there are no strokes"),
        ("<a><Stroke></Stroke></a>", "stroke 1 has no points"),
        ("<a><Stroke><Point x='nan' y='2'/></Stroke></a>", r"stroke 1, point 1 is \(nan, 2.0\)"),
        ("", "line 1 is not valid XML: no element found"),
        ("<!DOCTYPE a [\n<!ENTITY b 'c'>]><a/>", "line 2 declares an entity"),
        ('<?xml version="1.0" encoding="UTF-77"?><a/>', "is not valid XML"),
    ],
)
def test_broken_xml_is_named_with_its_line(content: str, message: str, iam: Path) -> None:
    path = iam / "a01/a01-000/a01-000u-01.xml"
    path.write_text(content)

    with pytest.raises(DataError, match=rf"a01-000u-01\.xml.*{message}"):
        HandwritingData(files=str(iam), batch_size=2).prepare()


def test_a_line_without_its_text_is_named(iam: Path, tmp_path: Path) -> None:
    path = iam / "a01/a01-000/a01-000u-01.xml"
    path.rename(path.with_name("a01-000u-03.xml"))
    with pytest.raises(DataError, match=r"a01-000u\.txt has 2 lines after CSR:, and this is line 3"):
        HandwritingData(files=str(iam), batch_size=2).prepare()
    (tmp_path / "z.xml").write_text(xml(strokes("ab")))
    with pytest.raises(DataError, match=r"z\.xml: the text of a line is found for lineStrokes/"):
        HandwritingData(files=str(tmp_path / "z.xml"), batch_size=2).prepare()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of files, dataset, hershey for handwriting"),
        ({"hershey": 10, "files": "x"}, "got files and hershey"),
        ({"hershey": 0}, "hershey=0"),
        ({"hershey": 5, "fonts": []}, r"fonts=\[\]"),
        ({"hershey": 5, "min_length": 0}, "min_length=0"),
        ({"hershey": 5, "on_error": "stop"}, "on_error='stop': expected one of raise, skip"),
        ({"hershey": 5, "mode": "both"}, "mode='both': expected one of synthesis, prediction"),
        ({"files": "x.jsonl", "max_points": 0}, "max_points=0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        HandwritingData(**options, batch_size=2)


def test_the_processor_of_another_task_is_refused(tmp_path: Path) -> None:
    other = Processor(StrokeTransform(1.0)).to_dict()
    data = HandwritingData(**written(tmp_path, "jsonl"), batch_size=2, processor_from=other)
    with pytest.raises(DataError, match=r"of another task: data\.mode=synthesis"):
        data.prepare()


def test_generated_lines_depend_on_the_seed_and_vary() -> None:
    one, same, other = (hershey_rows(30, seed, FONTS, 12) for seed in (1, 1, 2))

    assert one == same
    assert one != other
    assert all(len(row.values["text"]) >= 12 for row in one)
    assert {row.place.split()[-1] for row in one} == set(FONTS)
    words = "".join(row.values["text"] for row in one)
    assert words.isascii()
    spacing = [math.dist(*pair) for row in one for s in row.values["strokes"] for pair in pairwise(s)]
    assert max(spacing) < 4 * 1.6 + 2  # points of a stroke are near each other
    with pytest.raises(DataError, match="there is no Hershey font 'comic'; the fonts are futural"):
        hershey_rows(1, 1, ["comic"], 12)


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "HersheyFonts", None)
    with pytest.raises(DataError, match=r"needs the package Hershey-Fonts: pip install 'unrolled\[handwriting\]'"):
        hershey_rows(1, 1, FONTS, 12)
