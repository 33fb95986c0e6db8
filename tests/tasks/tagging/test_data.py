"""Tagged sentences from files of every kind, and what is wrong with them."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from unrolled.training.data.base import DataError
from unrolled_tasks.tagging import TaggingData
from unrolled_tasks.tagging.dates import LOCALES, date_rows

SENTENCES = [(["It", "rains", "."], ["PRON", "VERB", "PUNCT"]), (["Birds", "sing"], ["NOUN", "VERB"])] * 5
CONLLU = """# sent_id = 1
1\tIt\tit\tPRON\tPRP\t_\t2\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t0\troot\t_\t_
3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\t_
3.1\tempty\t_\t_\t_\t_\t_\t_\t_\t_


1\tYes\tyes\tINTJ\tUH\t_\t0\troot\t_\t_
"""


def written(folder: Path, kind: str) -> dict[str, Any]:
    path = folder / f"x.{kind}"
    if kind == "conllu":
        path.write_text(CONLLU * 5)
        return {"files": str(path), "tags": "upos"}
    if kind == "hub":
        features = datasets.Features(
            words=datasets.List(datasets.Value("string")),
            tags=datasets.List(datasets.ClassLabel(names=["NOUN", "PRON", "PUNCT", "VERB"])),
        )
        rows = [{"words": words, "tags": tags} for words, tags in SENTENCES]
        datasets.Dataset.from_list(rows, features=features).save_to_disk(path)
        return {"dataset": str(path)}
    if kind == "csv":
        lines = [f'"{" ".join(words)}","{" ".join(tags)}"' for words, tags in SENTENCES]
        path.write_text("\n".join(["words,tags", *lines]))
        return {"files": str(path)}
    content = "\n".join(json.dumps({"words": words, "tags": tags}) for words, tags in SENTENCES)
    with gzip.open(f"{path}.gz", "wt") as file:
        file.write(content)
    return {"files": f"{path}.gz"}


@pytest.mark.parametrize("unit", ["spelled", "word", "subword", "character", "byte"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "conllu", "hub"])
def test_every_source_and_unit(kind: str, unit: str, folder: Path) -> None:
    data = TaggingData(**written(folder, kind), unit=unit, batch_size=4, min_count=1)

    data.prepare()

    tags = ["AUX", "INTJ", "PART", "PRON"] if kind == "conllu" else ["NOUN", "PRON", "PUNCT", "VERB"]
    assert data.processor().target.labels == tags  # pyright: ignore[reportOptionalMemberAccess]
    assert data.splits() == ("train", "validation", "test")
    batches = list(data.train_dataloader())
    assert sum(int(batch.predictions.sum()) for batch in batches) == sum(len(s.words) for s in data._sentences["train"])
    for batch in batches:
        for row, example in enumerate(batch.examples.tolist()):
            sentence, n = data._sentences["train"][example], int(batch.predictions[row])
            assert [tags[index] for index in batch.targets[row, :n]] == sentence.tags
            assert int(batch.positions[row].max()) < int(batch.lengths[row])
            if unit in ("spelled", "word"):
                assert batch.positions[row, :n].tolist() == list(range(n))


def test_words_of_contractions_and_empty_nodes_are_left_out(folder: Path) -> None:
    data = TaggingData(**written(folder, "conllu"), min_count=1)
    data.prepare()

    assert data._sentences["train"][0].words == ["It", "do", "n't"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ('{"words": ["a"], "tags": ["X", "Y"]}', {}, r"line 1: 1 words and 2 tags; there must be one tag"),
        ('{"words": [], "tags": []}', {}, "0 words and 0 tags"),
        ('{"words": ["a b"], "tags": ["X"]}', {}, "'a b' is not a word"),
        ('{"word": ["a"], "tags": ["X"]}', {}, r"no column 'words'; did you mean word\?; .* Set data\.words"),
        ("", {}, "no rows in these files"),
        ('{"words": ["a"], "tags": ["X"]}', {"unit": "letter"}, "unit='letter' must be one of spelled, word"),
        ('{"words": ["a"], "tags": ["X"]}', {"dates": 5}, "exactly one of files, dataset, dates"),
        ('{"words": ["a"], "tags": ["X"]}', {"batch_size": 0}, "batch_size=0"),
        ('{"words": ["a"], "tags": ["X"]}', {"split_fractions": (0, 0, 1)}, "no training rows"),
    ],
)
def test_mistakes_are_named(content: str, options: dict[str, Any], message: str, folder: Path) -> None:
    (folder / "x.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        TaggingData(**{"files": "x.jsonl", "split_fractions": (1, 0, 0), "min_count": 1, **options}).prepare()


def test_a_line_of_conllu_with_other_fields_is_named(folder: Path) -> None:
    (folder / "x.conllu").write_text("# a\n1\tIt\tPRON\n")
    with pytest.raises(DataError, match=r"x\.conllu, line 2 has 3 fields, not 10"):
        TaggingData(files="x.conllu").prepare()


def test_a_processor_of_another_run_keeps_its_tags(folder: Path) -> None:
    first = TaggingData(**written(folder, "csv"), min_count=1)
    first.prepare()
    given = first.processor().to_dict()

    again = TaggingData(files="x.csv", processor_from=given, split_fractions=(0, 0, 1))
    again.prepare()
    assert again.processor().to_dict() == given
    (folder / "new.jsonl").write_text('{"words": ["Oh"], "tags": ["INTJ"]}')
    with pytest.raises(DataError, match=r"new\.jsonl, line 1: label 'INTJ' is not among the labels of training"):
        TaggingData(files="new.jsonl", processor_from=given, split_fractions=(0, 0, 1)).prepare()


def test_dates_have_their_fields() -> None:
    rows = date_rows(400, 1)

    assert rows == date_rows(400, 1) != date_rows(400, 2)
    assert len(LOCALES) == 23
    seen = {tag for row in rows for tag in row.values["tags"]}
    assert {"B-day", "B-month", "B-year", "B-weekday", "B-hour", "B-minute", "B-period", "O"} <= seen
    for row in rows:
        words, tags = row.values["words"], row.values["tags"]
        assert len(words) == len(tags)
        for word, tag in zip(words, tags, strict=True):
            if tag == "B-day":
                assert 1 <= int(word) <= 31
            if tag == "B-minute":
                assert 0 <= int(word) <= 59
