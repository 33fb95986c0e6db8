"""Recordings and pictures: found, made into frames, and refused with a name and a remedy."""

import inspect
import io
import json
import math
import struct
import wave
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from unrolled import AudioFeatures
from unrolled.deployment.command import _parsers
from unrolled.processing.audio.augmentation import AudioAugmentation
from unrolled.processing.audio.recordings import MAX_SECONDS
from unrolled.processing.images import MAX_PIXELS
from unrolled.training.data.base import DataError
from unrolled_tasks.classification import Audio, ClassificationData, Images
from unrolled_tasks.classification.data import LabeledBatch

Batches = Callable[..., list[LabeledBatch]]


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


def sound(**options: Any) -> Audio:
    return Audio(partial(AudioFeatures, num_mels=12), **options)


def sound_data(folder: Path, **options: Any) -> ClassificationData:
    data = ClassificationData(**{"modality": sound(), "files": str(folder), "source": "file", **options})
    data.prepare()
    return data


# Audio --------------------------------------------------------------------------------------------------------------


def test_a_folder_of_labels_is_read_and_its_speakers_held_out(tmp_path: Path, batches: Batches) -> None:
    pytest.importorskip("soundfile")
    folder = sounds(tmp_path / "sounds")

    data = sound_data(folder, group="^([a-z]+)_", held_out=["ada"], split_fractions=[0.7, 0.3, 0])

    assert data.processor().target.labels == ["high", "low"]
    (batch,) = batches(data, "test")
    assert all("/ada_" in shown for shown in batch.names)
    assert batch.source.shape[2] == data.sizes()["features"] == 12
    for row, length in enumerate(batch.lengths.tolist()):
        assert not batch.source[row, length:].any()


def test_parts_may_be_folders_above_the_labels(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    sounds(tmp_path / "all" / "train")
    sounds(tmp_path / "all" / "test", per_label=2)

    data = sound_data(tmp_path / "all", split_fractions=[0.75, 0.25, 0])

    assert data.describe().startswith("train 9, validation 3, test 4 examples")


def test_a_table_names_recordings_by_where_it_lies(tmp_path: Path, batches: Batches) -> None:
    pytest.importorskip("soundfile")
    sounds(tmp_path / "sounds")
    rows = [{"file": f"{p.parent.name}/{p.name}", "label": p.parent.name} for p in (tmp_path / "sounds").rglob("*.wav")]

    table = tmp_path / "sounds" / "metadata.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))

    data = sound_data(table, split_fractions=[1, 0, 0])

    assert len(batches(data)[0].lengths) == 12


def test_other_rates_and_channels_are_brought_in_line_and_said_once(
    tmp_path: Path, caplog: Any, batches: Batches
) -> None:
    pytest.importorskip("soundfile")
    folder = sounds(tmp_path / "sounds")
    for n in range(3):
        wav(folder / "low" / f"ada_stereo{n}.wav", tone(300, 3200, 16000), rate=16000, channels=2)
        wav(folder / "low" / f"bob_silent{n}.wav", [0.0] * 900)

    data = sound_data(folder, modality=sound(rate=8000), split_fractions=[1, 0, 0])

    for said in ("2 channels, which are mixed", "rate of 16000 Hz; it is resampled to 8000 Hz", "is silent"):
        assert caplog.text.count(said) == 1
    read = [batch for batch in batches(data) if any("stereo" in shown for shown in batch.names)]
    assert read
    assert all(bool(batch.source.isfinite().all()) for batch in batches(data))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be read as audio"), (b"RIFF nonsense", "cannot be read"), (None, "no sample")],
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
    assert "skipped: 1 unreadable, first " in sound_data(folder, on_error="skip").describe()


def test_what_is_changed_at_random_is_decided_by_epoch_and_example(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    folder = sounds(tmp_path / "sounds")
    changes = AudioAugmentation(
        speed=0.2, warp=0.2, stretch=0.2, shift=0.02, noise=1.0, gain=6, band_masks=1, time_masks=1
    )

    def epochs(batch_size: int) -> list[dict[int, torch.Tensor]]:
        data = sound_data(
            folder, modality=sound(augmentation=changes), split_fractions=[1, 0, 0], batch_size=batch_size
        )
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


# Images -----------------------------------------------------------------------------------------------------------


def test_the_default_digits_are_read_row_by_row(batches: Batches) -> None:
    data = ClassificationData(modality=Images(), package="digits", split_fractions=[0.7, 0.1, 0.2], batch_size=64)
    data.prepare()

    batch = batches(data)[0]
    assert batch.source.shape[1:] == (8, 8)
    values = torch.cat([b.source.flatten() for b in batches(data)])
    assert abs(float(values.mean())) < 0.02
    assert abs(float(values.std()) - 1) < 0.02
    assert data.processor().target.labels == [str(n) for n in range(10)]


def test_pictures_of_a_folder_are_resized_and_put_in_order(tmp_path: Path, batches: Batches) -> None:
    for label in ("bright", "dark"):
        (tmp_path / label).mkdir()
        for n in range(6):
            shade = 30 * n + (70 if label == "bright" else 0)
            Image.new("RGB", (9 + n, 7), (shade, 0, 0)).save(tmp_path / label / f"{n}.png")
    modality = Images(order="patches", size=[8, 8], patch=4, stride=2, color=True, permutation=3)

    data = ClassificationData(modality=modality, files=str(tmp_path), split_fractions=[1, 0, 0])
    data.prepare()

    (batch,) = batches(data)
    assert batch.source.shape == (12, 9, 48)
    assert Images(size=8).options()["size"] == [8, 8]
    permutation = data.processor().source.permutation
    assert sorted(permutation) == list(range(9)) != permutation
    (tmp_path / "dark" / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"broken\.png: not readable as an image"):
        ClassificationData(modality=Images(), files=str(tmp_path)).prepare()


# The hub -------------------------------------------------------------------------------------------------------------


def test_the_hub_gives_sound_and_pictures_as_they_are_stored(tmp_path: Path, batches: Batches) -> None:
    pytest.importorskip("soundfile")
    import datasets

    rows = {"audio": [], "digit": []}
    for path in sorted(sounds(tmp_path / "sounds").rglob("*.wav")):
        rows["audio"].append({"bytes": path.read_bytes(), "path": path.name})
        rows["digit"].append(int(path.parent.name == "high"))
    stored = datasets.Dataset.from_dict(rows).cast_column("digit", datasets.ClassLabel(names=["low", "high"]))
    stored.cast_column("audio", datasets.Audio()).save_to_disk(str(tmp_path / "set"))

    data = ClassificationData(
        modality=sound(), dataset=str(tmp_path / "set"), source="audio", target="digit", split_fractions=[1, 0, 0]
    )
    data.prepare()

    assert data.processor().target.labels == ["high", "low"]
    assert len(batches(data)[0].lengths) == 12
    picture = io.BytesIO()
    Image.new("L", (8, 8), 90).save(picture, "PNG")
    images = {"image": [{"bytes": picture.getvalue(), "path": None}] * 4, "label": [0, 1, 0, 1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(images, features=features).save_to_disk(str(tmp_path / "pictures"))
    with pytest.raises(DataError, match="all pixels of all training images"):
        ClassificationData(
            modality=Images(), dataset=str(tmp_path / "pictures"), source="image", split_fractions=[1, 0, 0]
        ).prepare()


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_a_recording_that_is_cut_off_is_named_left_out_or_read_and_counted(
    tmp_path: Path, batches: Batches, kept: str
) -> None:
    pytest.importorskip("soundfile")
    folder = sounds(tmp_path / "sounds")
    path = folder / "low" / "ada_cut.wav"
    wav(path, tone(300, 3200))
    path.write_bytes(path.read_bytes()[: 44 + 2 * 1600])
    options: dict[str, Any] = {"split_fractions": [1, 0, 0], "storage": kept, "cache": str(tmp_path / "cache")}

    def shown(data: ClassificationData) -> dict[str, int]:
        rows = [(b.names, b.lengths.tolist()) for b in batches(data)]
        return {Path(name).name: length for names, lengths in rows for name, length in zip(names, lengths, strict=True)}

    with pytest.raises(DataError, match=r"ada_cut\.wav is cut off: .*data\.on_error=skip .*, read reads them as far"):
        sound_data(folder, **options)
    left_out, read = (sound_data(folder, on_error=how, **options) for how in ("skip", "read"))
    again = sound_data(folder, on_error="read", **options)

    assert "ada_cut.wav" not in shown(left_out)
    for data in (read, again):
        assert shown(data)["ada_cut.wav"] == 1 + (1600 - 200) // 80
        assert len(shown(data)) == len(shown(left_out)) + 1
        assert "; truncated: 1 cut off, first " in data.describe()


def test_files_beyond_a_limit_are_named_with_the_option(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    folder = sounds(tmp_path / "sounds")
    wav(folder / "low" / "ada_long.wav", tone(300, 24_000))
    (tmp_path / "dark").mkdir()
    Image.new("L", (30, 20)).save(tmp_path / "dark" / "a.png")

    with pytest.raises(DataError, match=r"ada_long\.wav is 3 s long or more, and max_seconds=2: .*raise max_seconds"):
        sound_data(folder, modality=Audio(partial(AudioFeatures, num_mels=12), max_seconds=2))
    with pytest.raises(DataError, match=r"a\.png: 30 × 20 points, and max_pixels=599: .*raise max_pixels"):
        ClassificationData(modality=Images(max_pixels=599), files=str(tmp_path / "dark" / "a.png")).prepare()
    with pytest.raises(DataError, match="max_pixels=0: must be 1 or more"):
        Images(max_pixels=0)
    with pytest.raises(DataError, match="max_seconds=0: must be above 0"):
        Audio(partial(AudioFeatures, num_mels=12), max_seconds=0)


def test_the_commands_have_the_librarys_limits() -> None:
    _, commands = _parsers()

    assert commands["classify"].get_default("max_pixels") == commands["caption"].get_default("max_pixels") == MAX_PIXELS
    assert commands["classify"].get_default("max_seconds") == MAX_SECONDS
    assert inspect.signature(Images).parameters["max_pixels"].default == MAX_PIXELS
    assert inspect.signature(Audio).parameters["max_seconds"].default == MAX_SECONDS


def test_sound_is_the_same_with_workers_and_after_a_resume(tmp_path: Path) -> None:
    """Augmented recordings, read in this process or in two others, killed in an epoch or not."""

    def loader(workers: int) -> Any:
        augmented = sound(augmentation=AudioAugmentation(noise=0.5, shift=0.02))
        data = sound_data(sounds(tmp_path), modality=augmented, batch_size=3, workers=workers, seed=5)
        return data.train_dataloader()

    expected = [batch for one in [loader(0)] for _ in range(2) for batch in one]
    left = loader(2)
    head = list(islice(left, 2))
    resumed = loader(2)
    resumed.load_state_dict(left.state_dict())

    found = head + [batch for _ in range(2) for batch in resumed]

    assert len(found) == len(expected) > 4
    assert not torch.equal(expected[0].source, expected[len(expected) // 2].source)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.source, other.source)
        assert torch.equal(one.examples, other.examples)
        assert one.scale == other.scale
