"""What is kept on the disk is what would be kept in memory, made once, and made anew when anything changes."""

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from unrolled import AudioFeatures
from unrolled.processing.audio.augmentation import AudioAugmentation
from unrolled.training.data.base import DataError
from unrolled.training.data.examples import Example
from unrolled.training.data.modalities import Modality
from unrolled_tasks.classification import Audio, ClassificationData, Images, Series, Text
from unrolled_tasks.classification.data import LabeledBatch

Options = dict[str, Any]


def recordings(folder: Path) -> Options:
    soundfile = pytest.importorskip("soundfile")
    for number in range(20):
        label = ("low", "high")[number % 2]
        (folder / label).mkdir(parents=True, exist_ok=True)
        hertz = (300, 1500)[number % 2] + 10 * number
        samples = [0.5 * math.sin(2 * math.pi * hertz * n / 8000) for n in range(1200 + 100 * number)]
        soundfile.write(folder / label / f"{number}.wav", samples, 8000)
    return {"files": str(folder), "source": "file"}


def heard(folder: Path) -> Options:
    return {**recordings(folder), "modality": Audio(partial(AudioFeatures, num_mels=12, normalization="fitted"))}


def heard_changed(folder: Path) -> Options:
    return {
        **recordings(folder),
        "modality": Audio(partial(AudioFeatures, num_mels=12), augmentation=AudioAugmentation()),
    }


def seen(folder: Path) -> Options:
    for number in range(20):
        label = ("dark", "light")[number % 2]
        (folder / label).mkdir(parents=True, exist_ok=True)
        picture = Image.effect_noise((4 + number, 7), 40 + 60 * (number % 2))
        picture.save(folder / label / f"{number}.png")
    return {"files": str(folder), "modality": Images(size=[6, 5])}


def written(folder: Path) -> Options:
    folder.mkdir()
    rows = [{"text": f"a {('good', 'poor')[n % 2]} film of {n}", "label": ("yes", "no")[n % 2]} for n in range(20)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"files": str(folder), "source": "text", "modality": Text(min_count=1), "unit": "token"}


def measured(folder: Path) -> Options:
    folder.mkdir()
    lines = [",".join(str(n * step % 7) for step in range(2 + n)) + f":{'ab'[n % 2]}" for n in range(20)]
    (folder / "a.ts").write_text("@classLabel true a b\n@data\n" + "\n".join(lines) + "\n")
    return {"files": str(folder), "modality": Series()}


MEDIA = [heard, heard_changed, seen, written, measured]


def prepared(options: Options, **more: Any) -> ClassificationData:
    data = ClassificationData(**{"split_fractions": [0.6, 0.2, 0.2], "batch_size": 4, "seed": 3, **options, **more})
    data.prepare()
    return data


def every_batch(data: ClassificationData) -> Iterator[LabeledBatch]:
    """Two epochs of training, then each split as it is scored."""
    loader = data.train_dataloader()
    for _ in range(2):
        yield from loader
    for split in data.splits():
        data.evaluate_split(split)
        yield from data.test_dataloader()


def assert_same(one: ClassificationData, other: ClassificationData) -> None:
    count = 0
    for ours, theirs in zip(every_batch(one), every_batch(other), strict=True):
        count += 1
        assert torch.equal(ours.source, theirs.source)
        assert ours.source.dtype == theirs.source.dtype
        assert torch.equal(ours.lengths, theirs.lengths)
        assert torch.equal(ours.targets, theirs.targets)
        assert ours.targets.dtype == theirs.targets.dtype
        assert ours.names == theirs.names
    assert count > 6
    assert one.processor().to_dict() == other.processor().to_dict()
    assert one.training_counts() == other.training_counts()
    assert one.describe() == other.describe()


@pytest.mark.parametrize("modality", MEDIA)
def test_the_disk_holds_what_memory_would(
    modality: Callable[[Path], Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = prepared(modality(tmp_path / "files"))
    on_disk = {**medium_again(modality, tmp_path), "storage": "disk", "cache": str(tmp_path / "cache")}

    assert_same(prepared(on_disk), in_memory)

    on_disk["modality"] = medium_again(modality, tmp_path)["modality"]
    monkeypatch.setattr(type(on_disk["modality"]), "open", None)  # a second run opens nothing
    assert_same(prepared(on_disk), in_memory)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def medium_again(modality: Callable[[Path], Options], tmp_path: Path) -> Options:
    """The same options with a modality that has not opened anything yet."""
    made = modality(tmp_path / f"again-{len(list(tmp_path.iterdir()))}")
    return {**made, "files": str(tmp_path / "files")}


def test_only_what_training_needs_stays_on_the_disk(tmp_path: Path) -> None:
    for modality in (heard, heard_changed):
        prepared(modality(tmp_path / "files"), storage="disk", cache=str(tmp_path / modality.__name__))

    def left(name: str) -> list[str]:
        return sorted(path.name for path in (tmp_path / name).glob("examples-*/*.arrow"))

    assert left("heard") == ["test.read.arrow", "train.read.arrow", "validation.read.arrow"]
    assert left("heard_changed") == ["test.read.arrow", "train.opened.arrow", "validation.read.arrow"]


def test_other_options_and_other_files_are_prepared_anew(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    options = {**recordings(tmp_path / "files"), "storage": "disk", "cache": str(cache)}

    def folders(mels: int, **more: Any) -> int:
        prepared(options, modality=Audio(partial(AudioFeatures, num_mels=mels)), **more)
        return len([path for path in cache.iterdir() if path.is_dir()])

    assert folders(12) == 1
    assert folders(12) == 1
    assert folders(13) == 2
    assert folders(13, seed=4) == 3
    path = tmp_path / "files/low/0.wav"
    path.write_bytes(path.read_bytes() + b"\0\0")
    assert folders(13, seed=4) == 4


def test_what_was_left_out_is_said_by_later_runs_too(tmp_path: Path) -> None:
    options = heard(tmp_path / "files")
    (tmp_path / "files/low/2.wav").write_bytes(b"no sound")
    kept = {"storage": "disk", "cache": str(tmp_path / "cache")}

    with pytest.raises(DataError, match=r"2\.wav"):
        prepared(options, **kept)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()], "nothing is left of a failure"
    for _ in range(2):
        said = prepared(options, **kept, on_error="skip").describe()
        assert "skipped: 1 unreadable, first" in said
        assert "2.wav" in said


def test_a_medium_that_cannot_be_told_from_another_is_refused(tmp_path: Path) -> None:
    class Bare(Modality):
        suffixes = (".wav",)

        def open(self, example: Example) -> Any:
            return torch.zeros(3, 1)

        def fit(self, sources: Any) -> Any:
            return None

        def read(self, source: Any, modality: Any) -> Any:
            return source

    options = {**recordings(tmp_path / "files"), "modality": Bare()}
    with pytest.raises(DataError, match=r"Bare has no options\(\).*data.storage=memory"):
        prepared(options, storage="disk", cache=str(tmp_path / "cache"))
