"""Sentence pairs from anywhere: read as they are, dealt to splits, refused with the remedy."""

import gzip
import json
import re
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from babel import Locale
from babel.localedata import locale_identifiers

from unrolled.training.data.base import DataError
from unrolled.training.data.rows import HubRows
from unrolled_tasks.translation.data import PairBatch, TranslationData
from unrolled_tasks.translation.phrases import KINDS, phrases, split_of

ROWS = [{"en": f"the {word} number {n}", "de": f"die {word} Nummer {n}"} for n in range(20) for word in ("old", "new")]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    return tmp_path


def write(name: str) -> Any:
    """The rows in the format that the name says."""
    path = Path(name)
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    if name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
    elif name.endswith(".jsonl"):
        path.write_text("\n".join(lines))
    elif name.endswith(".tsv"):
        path.write_text("\n".join(["en\tde", *(f"{row['en']}\t{row['de']}" for row in ROWS)]))
    elif name.endswith(".parquet"):
        import datasets

        datasets.Dataset.from_list(ROWS).to_parquet(name)
    else:
        for side in ("en", "de"):
            Path(f"{name}.{side}").write_text("".join(f"{row[side]}\n" for row in ROWS))
        return [f"{name}.en", f"{name}.de"]
    return name


def data(**options: Any) -> TranslationData:
    made = TranslationData(**{"unit": "character", "split_fractions": [0.8, 0.1, 0.1], "batch_tokens": 200, **options})
    made.prepare()
    return made


def texts(tokenizer: Any, ids: torch.Tensor, lengths: torch.Tensor) -> list[str]:
    return [tokenizer.decode(row[:length].tolist()) for row, length in zip(ids, lengths.tolist(), strict=True)]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.tsv", "t.parquet", "t"])
def test_pairs_come_from_every_kind_of_file(name: str) -> None:
    made = data(files=write(name))

    batches: list[PairBatch] = [*made.train_dataloader(), *made.val_dataloader(), *made.test_dataloader()]
    read = {
        pair
        for batch in batches
        for pair in zip(
            texts(made.tokenizers[0], batch.source, batch.source_lengths),
            texts(made.tokenizers[1], batch.targets, batch.lengths),
            strict=True,
        )
    }
    assert read == {(row["en"], row["de"]) for row in ROWS}
    assert len(made.val_dataloader()) > 0
    assert len(made.test_dataloader()) > 0
    first = batches[0]
    assert (first.inputs[:, 0] == made.tokenizers[1].start).all()
    torch.testing.assert_close(first.inputs[:, 1:][first.inputs[:, 1:] > 1], first.targets[first.targets > 1])


def test_a_direction_is_one_option_and_a_nested_column_is_read(place: Path) -> None:
    rows = [{"id": n, "translation": {"en": f"yes {n}", "de": f"ja {n}"}} for n in range(30)]
    (place / "n.jsonl").write_text("\n".join(map(json.dumps, rows)))

    made = data(files="n.jsonl", source="de", target="en")

    (batch,) = made.test_dataloader()
    assert all(text.startswith("ja ") for text in batch.source_text)
    assert all(text.startswith("yes ") for text in batch.target_text)


def test_over_long_and_empty_training_pairs_are_left_out_and_counted(place: Path) -> None:
    rows = [*ROWS, {"en": "long " * 40, "de": "lang"}, {"en": "", "de": "leer"}, {"en": "none", "de": "  "}]
    (place / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))

    made = data(files="r.jsonl", validation_files=write("t.jsonl"), test_files="t.jsonl", max_length=60)

    assert "train 40," in made.describe()
    assert "2 empty, 1 long" in made.describe()


def test_subwords_are_shared_when_asked_and_travel_as_plain_data() -> None:
    made = data(files=write("t.jsonl"), unit="subword", vocabulary_size=60, joint=True)
    source, target = made.tokenizers

    assert source is target
    again = data(files="t.jsonl", processor_from=json.loads(json.dumps(made.processor().to_dict())))
    assert again.tokenizers[0] is again.tokenizers[1]
    assert again.processor().to_dict() == made.processor().to_dict()
    assert made.sizes() == {"source_vocabulary": target.size, "vocabulary": target.size}


def test_training_pairs_are_spelled_anew_and_scored_ones_are_not() -> None:
    options = {"files": write("t.jsonl"), "unit": "subword", "vocabulary_size": 60, "joint": True}
    plain, dropping = data(**options), data(**options, subword_dropout=0.2)
    usual, loader = list(plain.train_dataloader()), dropping.train_dataloader()

    torch.manual_seed(3)
    epochs = [list(loader) for _ in range(2)]
    torch.manual_seed(3)
    again = list(dropping.train_dataloader())

    assert sentences(plain, epochs[0]) == sentences(plain, usual)
    size = sum(int(batch.lengths.sum()) for batch in usual)
    assert size < sum(int(batch.lengths.sum()) for batch in epochs[0])
    assert spellings(epochs[0]) != spellings(epochs[1])
    assert spellings(epochs[0]) == spellings(again)
    assert spellings(list(plain.val_dataloader())) == spellings(list(dropping.val_dataloader()))
    assert [batch.scale for batch in epochs[0]] == [batch.scale for batch in usual]


def sentences(made: TranslationData, batches: list[PairBatch]) -> set[str]:
    """Both sides of all pairs."""
    source, target = made.tokenizers
    return {
        text
        for batch in batches
        for text in (
            *texts(source, batch.source, batch.source_lengths),
            *texts(target, batch.targets, batch.lengths),
        )
    }


def spellings(batches: list[PairBatch]) -> set[tuple[int, ...]]:
    """The ids of each translation, in whatever batch it stands."""
    return {tuple(row[:n].tolist()) for b in batches for row, n in zip(b.targets, b.lengths.tolist(), strict=True)}


def test_a_streamed_set_is_read_once_and_gives_what_its_files_give(monkeypatch: pytest.MonkeyPatch) -> None:
    write("t.jsonl")
    options = {"data_files": {"train": "t.jsonl", "validation": "t.jsonl"}, "streaming": True}
    coding = {"unit": "subword", "vocabulary_size": 60, "joint": True, "split_fractions": [0.9, 0.05, 0.05]}
    asked: list[str] = []
    read = HubRows.read
    monkeypatch.setattr(HubRows, "read", lambda rows, split: asked.append(split) or read(rows, split))

    streamed = data(dataset="json", dataset_options=options, **coding)

    assert asked == ["train", "validation"]
    local = data(files="t.jsonl", validation_files="t.jsonl", **coding)
    assert streamed.describe() == local.describe()
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        ones, others = (list(getattr(made, loader)()) for made in (streamed, local))
        assert ones
        assert spellings(ones) == spellings(others)
        assert [batch.source_text for batch in ones] == [batch.source_text for batch in others]


def test_memory_does_not_grow_with_the_corpus(place: Path) -> None:
    peaks: list[int] = []
    for count in (2_000, 20_000):
        lines = (f"the word number {n} of all of them\tdas Wort Nummer {n} von allen zusammen\n" for n in range(count))
        (place / f"{count}.tsv").write_text("en\tde\n" + "".join(lines))
        few = {"validation_files": write("t.tsv"), "test_files": "t.tsv"}
        tracemalloc.start()
        made = data(files=f"{count}.tsv", unit="character", batch_tokens=2000, **few)
        next(iter(made.train_dataloader()))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert (peaks[1] - peaks[0]) / 18_000 < 250  # bytes a pair, of its lengths; as Python's objects they would be 600
    assert not list(place.glob("cache/*/tmp*"))  # what was written on the way is gone


def test_scored_parts_are_read_once_whatever_the_number_of_processes() -> None:
    made = data(files=write("t.jsonl"), validation_files="t.jsonl")

    scored = torch.cat([batch.examples for batch in made.val_dataloader()])

    assert sorted(scored.tolist()) == list(range(40))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of files, dataset, phrases"),
        ({"files": "t.jsonl", "phrases": 9}, "files and phrases"),
        ({"files": "t.jsom"}, r"no file or folder t.jsom.*did you mean t.jsonl"),
        ({"files": "t.jsonl", "target": "dee"}, r"no column 'dee'; did you mean de\?"),
        ({"files": ["t.en", "short.de"]}, "t.en has 40 and .*short.de has 1 lines"),
        ({"files": ["t.en", "latin.de"]}, "latin.de is not UTF-8: .* in line 2"),
        ({"files": "t.xml"}, "give tables .*jsonl"),
        ({"files": "t.jsonl", "unit": "subword", "vocabulary_size": 9}, "vocabulary_size=9 is too small"),
        ({"files": "t.jsonl", "unit": "letter"}, "unit='letter' is one of subword"),
        ({"files": "t.jsonl", "subword_dropout": 1.0, "unit": "subword"}, "subword_dropout=1.0"),
        ({"files": "t.jsonl", "subword_dropout": 0.1}, "unless unit=subword and subwords=bpe; got character"),
        ({"files": "t.jsonl", "batch_tokens": 0}, "batch_tokens=0"),
        ({"files": "t.jsonl", "split_fractions": [0.5, 0.5, 0.5]}, "sum to 1"),
        ({"files": "t.jsonl", "max_length": 2}, "no training pair is left"),
        ({"files": "t.jsonl", "test_files": "hole.jsonl"}, r"test pair 1 \(.*hole.jsonl, line 1\) has an empty side"),
        (
            {"files": "t.jsonl", "processor_from": {"source": {"_target_": "unrolled.ByteTokenizer"}, "target": None}},
            "a ByteTokenizer; translation needs",
        ),
        ({"phrases": 9, "source": "enn"}, "locale 'enn' is not in CLDR"),
        ({"phrases": 9, "target": "en"}, "both 'en'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_remedy(place: Path, options: dict[str, Any], message: str) -> None:
    write("t.jsonl")
    write("t")
    (place / "short.de").write_text("eine\n")
    (place / "latin.de").write_bytes("ja\nschön\n".encode("latin-1"))
    (place / "t.xml").write_text("<x/>")
    (place / "hole.jsonl").write_text('{"en": "a", "de": ""}\n')

    with pytest.raises(DataError, match=message):
        data(**options)


def test_phrases_are_real_repeatable_and_never_in_two_parts() -> None:
    made = phrases("en", "de", 800, seed=1)

    assert made == phrases("en", "de", 800, seed=1)
    assert made != phrases("en", "de", 800, seed=2)
    assert {phrase.kind for phrase in made} == set(KINDS)
    assert all(phrase.source and phrase.target for phrase in made)
    assert len({phrase.source.lower() for phrase in made}) == len(made)
    known = {phrase.source: phrase.target for phrase in phrases("en", "fr", 4000)}
    assert known["Germany"] == "Allemagne"
    shares = (0.8, 0.1, 0.1)
    splits = [split_of(phrase, shares) for phrase in made]
    assert 0.7 < splits.count("train") / len(splits) < 0.9
    assert splits == [split_of(phrase._replace(source=phrase.source.upper()), shares) for phrase in made]


@pytest.mark.parametrize("missing", ["babel", "num2words", "tokenizers"])
def test_a_missing_package_is_named_with_its_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    options = {"files": write("t.jsonl"), "unit": "subword"} if missing == "tokenizers" else {"phrases": 40}

    with pytest.raises(DataError, match=r"pip install 'unrolled\[text\]'"):
        data(**options)


def test_a_part_that_would_be_empty_is_none() -> None:
    made = data(phrases=24, split_fractions=[0.98, 0.01, 0.01])

    assert made.val_dataloader() == []
    assert "validation" not in made.describe().split(";")[0]


@pytest.mark.parametrize(
    ("target", "kind", "written"),
    [("tr", "number", r"^%[\d.,]+$"), ("pt-BR", "spelled", r"^[a-zê, ]+$"), ("nb", "spelled", r"^[a-zæøå ,-]+$")],
)
def test_each_language_writes_its_own_way(target: str, kind: str, written: str) -> None:
    made = [phrase.target for phrase in phrases("en", target, 400) if phrase.kind == kind]

    assert any(re.match(written, text) for text in made)


def test_a_language_without_names_or_spelling_goes_without() -> None:
    # Which languages lack names changes with each edition of CLDR, so one is looked for in the edition that is here.
    nameless = next(name for name in sorted(locale_identifiers()) if not Locale.parse(name).territories)

    assert "territory" not in {phrase.kind for phrase in phrases("en", nameless, 80)}
    assert "spelled" not in {phrase.kind for phrase in phrases("en", "am", 80)}


def test_phrases_exist_beyond_two_languages() -> None:
    made = phrases("ja", "pt_BR", 160)

    assert {phrase.kind for phrase in made} == set(KINDS)
    assert any("年" in phrase.source for phrase in made)
