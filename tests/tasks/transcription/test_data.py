"""Transcripts from folders, tables and drawn lines: what they say, how they are divided, and what is refused."""

import csv
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from omegaconf import DictConfig
from PIL import Image

from unrolled import AudioFeatures, LineColumns
from unrolled.processing.audio.augmentation import AudioAugmentation
from unrolled.processing.lines import LineAugmentation
from unrolled.training.data.base import DataError
from unrolled.training.data.buckets import BatchSpec
from unrolled.training.data.recordings import Audio
from unrolled.training.data.splitting import Split
from unrolled_tasks.char_lm.sources import ShakespeareSource
from unrolled_tasks.char_lm.splitting import split_text
from unrolled_tasks.transcription import DrawnLines, Joining, LineImages, TranscriptionData

LINES = LineImages(LineColumns(8, 2, 2))
NEVER: dict[str, Any] = {"split_fractions": [1.0, 0.0, 0.0]}


def image(path: Path, width: int = 40) -> None:
    Image.fromarray(np.random.default_rng(width).integers(0, 255, (8, width), dtype=np.uint8)).save(path)


@pytest.fixture
def lines(folder: Path) -> Path:
    """Ten images, half of them with kraken's .gt.txt beside, half with .txt, and easyocr's table of all."""
    (folder / "lines").mkdir()
    rows = [("filename", "words")]
    for number in range(10):
        image(folder / "lines" / f"{number}.png", 40 + number)
        suffix = "gt.txt" if number % 2 else "txt"
        (folder / "lines" / f"{number}.{suffix}").write_text(f"ab {number}\n", encoding="utf-8")
        rows.append((f"{number}.png", f"ab {number}"))
    with (folder / "lines" / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def prepared(**options: Any) -> TranscriptionData:
    data = TranscriptionData(**{"modality": LINES, **options})
    data.prepare()
    return data


def texts(data: TranscriptionData, split: str = "train") -> set[str]:
    count = len(data.examples(split, scored=True).counts)
    return set(data.batch(split, BatchSpec(np.arange(count), 0), 1.0, scored=True).texts)


def test_files_beside_and_tables_are_the_same(lines: Path) -> None:
    beside = prepared(files="lines", **NEVER)
    table = prepared(files="lines/labels.csv", source="filename", target="words", **NEVER)

    assert texts(beside) == texts(table) == {f"ab {number}" for number in range(10)}
    assert beside.processor().to_dict() == table.processor().to_dict()
    one, other = (data.batch("train", BatchSpec(np.array([3]), 0), 1.0, scored=True) for data in (beside, table))
    assert torch.equal(one.source, other.source)
    assert beside.sizes() == {"features": 16, "outputs": 2 + len(set("ab 0123456789"))}


def test_a_folder_may_be_the_transcript(folder: Path) -> None:
    for word in ("two", "ten"):
        (folder / "words" / word).mkdir(parents=True)
        image(folder / "words" / word / "x.png")
    assert texts(prepared(files="words", transcripts="folder", **NEVER)) == {"two", "ten"}


def test_a_batch_has_its_frames_and_labels_and_nothing_in_the_padding(lines: Path) -> None:
    data = prepared(files="lines", **NEVER)
    batch = data.batch("train", BatchSpec(np.arange(10), 0), 1.0, scored=True)
    target = data.processor().target
    assert target is not None
    for row in range(10):
        assert target.decode(batch.targets[row, : batch.predictions[row]].tolist()) == batch.texts[row]
        read = LineColumns(8, 2, 2).encode(str(Path("lines", Path(batch.names[row]).name)))
        assert torch.equal(batch.source[row, : batch.lengths[row]], read)
        assert not bool(batch.source[row, batch.lengths[row] :].any())
    assert data.examples("train", scored=False).lengths == [[int(length)] for length in batch.lengths]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"bad\.png: the transcript is empty"),
        ("a" * 15, r"bad\.png: 20 frames for the transcript 'aaaaaaaaaaaaaaa', which needs at least 29"),
        ("ab!", r"bad\.png: the transcript 'ab!' has '!', which no training transcript has"),
    ],
)
def test_a_transcript_that_cannot_be_is_refused_or_skipped(lines: Path, text: str, said: str) -> None:
    (lines / "more").mkdir()
    for name, words in {"good": "ab 1", "bad": text}.items():
        image(lines / "more" / f"{name}.png")
        (lines / "more" / f"{name}.txt").write_text(words)
    options = {"files": "lines", "test_files": "more", **NEVER}

    with pytest.raises(DataError, match=said + ".*data.on_error=skip"):
        prepared(**options)
    data = prepared(**options, on_error="skip")

    assert texts(data, "test") == {"ab 1"}
    assert "skipped 1 unusable" in data.describe() or "1 unusable" in data.describe()
    assert re.search(said, data.describe())


def test_tables_are_named_with_the_line(lines: Path) -> None:
    (lines / "lines" / "t.csv").write_text("file,text\n0.png,ab\n1.png,abbbbbbbbbbbbbbbbbbbb\n")
    with pytest.raises(DataError, match=r"t\.csv, line 3: 21 frames for the transcript"):
        prepared(files="lines/t.csv", **NEVER)
    (lines / "lines" / "t.csv").write_text("file,text\n0.png,ab\nmissing.png,ab\n")
    with pytest.raises(DataError, match=r"t\.csv, line 3: .*missing\.png: no such file"):
        prepared(files="lines/t.csv", **NEVER)


def test_broken_images_and_missing_transcripts_are_named(lines: Path) -> None:
    (lines / "lines" / "7.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    with pytest.raises(DataError, match=r"7\.png: not readable as an image"):
        prepared(files="lines", **NEVER)
    assert len(texts(prepared(files="lines", on_error="skip", **NEVER))) == 9
    (lines / "lines" / "3.gt.txt").unlink()
    with pytest.raises(DataError, match=r"3\.png has no text: there is no 3\.gt\.txt or 3\.txt beside it"):
        prepared(files="lines", on_error="skip", **NEVER)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give exactly one of files, dataset, drawn"),
        ({"files": "lines", "unit": "byte"}, "unit='byte' must be character, word or subword"),
        ({"files": "lines", "on_error": "read"}, "on_error='read' must be raise or skip"),
        ({"files": "lines", "transcripts": "name"}, "transcripts='name' must be file or folder"),
        ({"files": "lines", "join": Joining()}, "join joins recordings"),
    ],
)
def test_wrong_options_are_refused(lines: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        prepared(**options)


def test_drawn_lines_depend_on_the_seed_and_have_their_own_fonts_and_plays() -> None:
    def drawn(**options: Any) -> dict[str, Any]:
        return DrawnLines(12, 4, 5, max_length=12, size=12, degradation=LineAugmentation(noise=0.1), **options).splits()

    one, again, other = drawn(), drawn(), drawn(seed=1)
    assert {split: len(found) for split, found in one.items()} == {"train": 12, "validation": 4, "test": 5}
    for split, found in one.items():
        assert [each.target for each in found] == [each.target for each in again[split]]
        assert [each.target for each in found] != [each.target for each in other[split]]
        assert all(torch.equal(a.source, b.source) for a, b in zip(found, again[split], strict=True))
    assert set("".join(each.target for each in one["test"])) <= set("".join(each.target for each in one["train"]))


def test_a_language_model_of_the_plays_does_not_learn_the_test_lines(configure: Callable[..., DictConfig]) -> None:
    data = configure("run", "task=char_lm", small=False).data
    texts = split_text(ShakespeareSource(), Split(split_fractions=data.split_fractions), data.concatenate)
    learned = re.sub(r"\s+", " ", "".join(piece for document in texts["train"]() for piece in document))

    found = DrawnLines(200, 1, 100, size=8).splits()

    assert all(each.target in learned for each in found["train"])
    assert sum(each.target in learned for each in found["test"]) <= 2  # phrases that occur in several plays


def test_impossible_drawings_are_refused() -> None:
    with pytest.raises(DataError, match="max_length=0"):
        DrawnLines(max_length=0)
    with pytest.raises(DataError, match=r"nofont\.ttf cannot be used"):
        DrawnLines(1, 1, 1, fonts=["nofont"]).splits()
    with pytest.raises(DataError, match=r"train_size=100000000: the plays of this split have \d+ such lines"):
        DrawnLines(100_000_000).splits()


def tone(path: Path, hertz: float, seconds: float = 0.2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(8000 * seconds)) / 8000), 8000)


@pytest.fixture
def tones(folder: Path) -> Path:
    for speaker, factor in (("ann", 1.0), ("bob", 1.1), ("cat", 1.2)):
        for word, hertz in (("low", 300), ("high", 900)):
            for take in range(4):
                tone(folder / "tones" / word / f"{speaker}_{take}.wav", hertz * factor)
    return folder


def heard(**options: Any) -> TranscriptionData:
    audio = Audio(partial(AudioFeatures, num_mels=8))
    return prepared(modality=audio, files="tones", transcripts="folder", unit="word", **options)


def test_recordings_are_joined_within_a_speaker(tones: Path) -> None:
    joining = Joining(20, 4, 6, min_items=2, max_items=3, pause=0.1, speaker="^[a-z]+")
    data = heard(group="^[a-z]+", held_out=["cat"], split_fractions=[0.5, 0.5, 0.0], join=joining)

    assert {split: len(data.examples(split, scored=True).counts) for split in data.splits()} == {
        "train": 20,
        "validation": 4,
        "test": 6,
    }
    for split in data.splits():
        for each in data.opened(split):
            speakers = {Path(place).name[:3] for place in each.place.split(" + ")}
            assert len(speakers) == 1
            assert ("cat" in speakers) == (split == "test")
            places = each.place.split(" + ")
            assert each.text.split() == [Path(place).parent.name for place in places]
            assert 1600 * len(places) <= len(each.source) <= 1600 * len(places) + 800 * (len(places) + 1)
    again = heard(group="^[a-z]+", held_out=["cat"], split_fractions=[0.5, 0.5, 0.0], join=joining)
    assert [each.text for each in again.opened("train")] == [each.text for each in data.opened("train")]
    assert data.fingerprint() == again.fingerprint()
    with pytest.raises(DataError, match=r"wav: its name does not match data\.join\.speaker='x'"):
        heard(join=Joining(2, 2, 2, speaker="x"))


def test_an_augmented_recording_that_is_too_short_is_read_as_it_is(folder: Path) -> None:
    tone(folder / "t" / "a.wav", 400, 0.06)  # four frames
    (folder / "t" / "a.txt").write_text("abcd")
    audio = Audio(partial(AudioFeatures, num_mels=8), augmentation=AudioAugmentation(speed=0.9))
    data = prepared(modality=audio, files="t", **NEVER)
    for epoch in range(8):
        batch = data.batch("train", BatchSpec(np.array([0]), epoch), 1.0, scored=False)
        assert int(batch.lengths[0]) >= 4


@pytest.mark.parametrize(
    "options", [{"min_items": 3, "max_items": 2}, {"pause": -1.0}, {"train_size": 0}, {"speaker": "["}]
)
def test_impossible_joining_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"join: (train_size|speaker)"):
        Joining(**options)


def test_augmentation_depends_on_the_epoch_and_the_example_alone(lines: Path) -> None:
    modality = LineImages(LineColumns(8, 2, 2), LineAugmentation(noise=0.2))
    data = prepared(modality=modality, files="lines", **NEVER)

    def read(rows: list[int], epoch: int) -> Any:
        return data.batch("train", BatchSpec(np.array(rows), epoch), 1.0, scored=False).source

    alone, both = read([4], 1), read([2, 4], 1)
    assert torch.equal(both[1, : alone.shape[1]], alone[0])
    assert not torch.equal(read([4], 2), alone)
