"""Captioned images from every kind of source, as batches; what is wrong with them is said before training."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled.processing.transform import Processor
from unrolled.training.data.arrays import Arrays, EncodedImage, EncodedImages, write_arrays, write_encoded_images
from unrolled.training.data.base import DataError
from unrolled.training.data.buckets import BatchSpec
from unrolled_tasks.captioning import CaptionData
from unrolled_tasks.captioning.data import CaptionBatch
from unrolled_tasks.captioning.glyphs import GlyphSource

Image = pytest.importorskip("PIL.Image")
TRANSFORM: dict[str, Any] = {"size": 12, "mean": [0.5] * 3, "std": [0.5] * 3}
WAYS = ("plain", "horizontal_flip")


def prepared(**options: Any) -> CaptionData:
    given = {"transform": TRANSFORM, "min_count": 1, "split_fractions": (1, 0, 0), **options}
    data = CaptionData(**given)
    data.prepare()
    return data


def texts(data: CaptionData, split: str = "train") -> Counter[tuple[str, ...]]:
    return Counter(map(tuple, data.references(split)))


def test_a_folder_a_table_parquet_and_a_hub_set_are_the_same(pictures: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [json.loads(line) for line in (pictures / "shapes" / "metadata.jsonl").read_text().splitlines()]
    columns = {
        "image": [{"bytes": (pictures / "shapes" / r["file_name"]).read_bytes(), "path": r["file_name"]} for r in rows],
        "caption_0": [row["captions"][0] for row in rows],
        "caption_1": [row["captions"][1] for row in rows],
        "caption_id": [None] * len(rows),
    }
    parquet.write_table(pa.table(columns), pictures / "shapes.parquet")
    lines = ["image,caption", *(f"{r['file_name']},{text}" for r in rows for text in r["captions"])]
    (pictures / "list.csv").write_text("\n".join(lines))

    sets = [
        prepared(files="shapes"),
        prepared(files="shapes/metadata.jsonl", image="file_name", captions="captions"),
        prepared(files="shapes.parquet", captions="caption_*"),
        prepared(files="list.csv", images="shapes"),
        prepared(dataset="parquet", dataset_options={"data_files": "shapes.parquet"}),
        prepared(dataset="imagefolder", dataset_options={"data_dir": "shapes"}),
    ]

    assert texts(sets[0])[("a red half on the left", "the left half is red")] == 1
    for other in sets[1:]:
        assert texts(other) == texts(sets[0])
    first = sets[0].batch("train", BatchSpec(np.arange(4), 0), 1.0, scored=True)
    other = sets[2].batch("train", BatchSpec(np.arange(4), 0), 1.0, scored=True)
    torch.testing.assert_close(first.images, other.images, rtol=0, atol=0)


def test_karpathys_file_deals_its_images_to_parts(pictures: Path) -> None:
    splits = ["train", "restval", "val", "test"] * 4
    images = [
        {
            "filename": path.name,
            "split": split,
            "sentences": [{"raw": f"A {path.stem} thing.", "tokens": []}, {"raw": "Half."}],
        }
        for path, split in zip(sorted((pictures / "shapes").glob("*.png")), splits, strict=True)
    ]
    (pictures / "dataset_small.json").write_text(json.dumps({"dataset": "small", "images": images}))

    data = prepared(karpathy="dataset_small.json", images="shapes")

    assert [len(data.references(split)) for split in ("train", "validation", "test")] == [8, 4, 4]
    assert all(len(several) == 2 for several in data.references("train"))
    with pytest.raises(DataError, match=r"data\.images"):
        CaptionData(karpathy="dataset_small.json", transform=TRANSFORM)
    images[0]["split"] = "Test"
    (pictures / "misspelt.json").write_text(json.dumps({"images": images}))
    with pytest.raises(DataError, match=r"split 'Test' of image black_bottom\.png is one of train, restval, val"):
        prepared(karpathy="misspelt.json", images="shapes")
    (pictures / "other.json").write_text("[]")
    with pytest.raises(DataError, match='no list of "images"'):
        prepared(karpathy="other.json", images="shapes")


def test_training_takes_each_caption_once_and_scoring_each_image(pictures: Path) -> None:
    data = prepared(files="shapes", batch_tokens=40)
    codec = data.tokenizer

    seen: list[str] = []
    for batch in data.train_dataloader():
        assert len(batch.images) <= len(batch.inputs)
        for row, length, image in zip(batch.targets, batch.lengths, batch.rows, strict=True):
            text = codec.decode(row[: length - 1].tolist())
            assert int(row[length - 1]) == codec.start
            assert text in batch.references[image]
            seen.append(text)
    data.evaluate_split("train")
    scored = list(data.test_dataloader())

    assert Counter(seen) == Counter(text for several in data.references("train") for text in several)
    assert sorted(torch.cat([batch.examples for batch in scored]).tolist()) == list(range(16))
    assert all(Counter(batch.rows.tolist()) == dict.fromkeys(range(len(batch.images)), 2) for batch in scored)


def test_an_image_goes_with_its_own_captions(pictures: Path) -> None:
    data = prepared(files="shapes", batch_tokens=30)

    for batch in data.train_dataloader():
        for image, several in zip(batch.images, batch.references, strict=True):
            red, green, blue = (float(channel.mean()) for channel in image)
            color = "black" if max(red, green, blue) < 0.1 else ("red", "green", "blue")[np.argmax([red, green, blue])]
            assert color in several[0]


def test_an_epoch_shows_each_image_as_it_is_and_mirrored(pictures: Path) -> None:
    plain = prepared(files="shapes", batch_tokens=30)
    data = prepared(files="shapes", batch_tokens=30, horizontal_flip=True)
    images = {number: each for batch in plain.train_dataloader() for number, each in _numbered(batch)}

    seen = Counter[tuple[int, str, str]]()
    for batch in data.train_dataloader():
        numbers = batch.examples[batch.rows].tolist()
        for number, image, target, length in zip(
            numbers, batch.images[batch.rows], batch.targets, batch.lengths, strict=True
        ):
            ways = [way for way in WAYS if torch.equal(image, _seen_so(images[number], way))]
            for way in ways:
                seen[number, way, data.tokenizer.decode(target[: length - 1].tolist())] += 1
    every = [(n, way, text) for n, several in enumerate(data.references("train")) for text in several for way in WAYS]

    upright = [n for n, each in images.items() if torch.equal(each, each.flip(-1))]
    assert 0 < len(upright) < 16  # a half on the top looks the same in a mirror
    assert seen == Counter({each: 2 if each[0] in upright else 1 for each in every})
    assert len(list(data.val_dataloader())) == len(list(plain.val_dataloader()))
    assert "horizontal flips" in data.describe()
    assert "both sides" not in plain.describe()


def _numbered(batch: CaptionBatch) -> Iterable[tuple[int, Tensor]]:
    return zip(batch.examples.tolist(), batch.images, strict=True)


def _seen_so(image: Tensor, way: str) -> Tensor:
    return image.flip(-1) if way == "horizontal_flip" else image


def test_glyphs_are_split_by_character_and_drawn_in_several_styles(folder: Path) -> None:
    source = GlyphSource(3, 24, (0.8, 0.1, 0.1), seed=0)
    names = {split: [one.captions[0] for one in source.read(split)] for split in source.splits}
    counts = Counter(names["train"])

    assert not set(names["train"]) & (set(names["validation"]) | set(names["test"]))
    assert len(names["test"]) == len(set(names["test"]))
    assert max(counts.values()) == 3
    assert counts["LATIN SMALL LETTER A WITH MACRON"] + names["test"].count("LATIN SMALL LETTER A WITH MACRON") > 0
    pictures = [one.picture.content for one in source.read("train") if one.captions[0] == names["train"][0]]
    assert len(set(pictures)) == len(pictures) > 1
    again = [one.picture.content for one in GlyphSource(3, 24, (0.8, 0.1, 0.1), seed=0).read("test")]
    assert again == [one.picture.content for one in source.read("test")]


def test_all_text_faces_of_matplotlib_are_drawn_from() -> None:
    """DejaVu has no circled letters; STIX draws an E otherwise than DejaVu does."""
    source = GlyphSource(16, 24, (1.0, 0.0, 0.0), seed=0)
    drawn = Counter(one.captions[0] for one in source.read("train"))

    assert drawn["CIRCLED LATIN CAPITAL LETTER A"] > 1
    assert drawn["LATIN CAPITAL LETTER E WITH ACUTE"] == 16
    faces = {face for _, faces in source._shapes for face in faces}
    assert {face.removeprefix("STIXGeneral") for face in faces if face.startswith("STIX")} == {
        "",
        "Bol",
        "Italic",
        "BolIta",
    }
    code = ord("E")
    assert source._draw(code, "DejaVuSerif", 0.7) != source._draw(code, "STIXGeneral", 0.7)


def test_characters_that_look_the_same_are_one_with_several_names() -> None:
    source = GlyphSource(4, 24, (0.8, 0.1, 0.1), seed=0)
    images = {split: list(source.read(split)) for split in source.splits}
    (names,) = {
        one.captions for split in images.values() for one in split if "GREEK CAPITAL LETTER ALPHA" in one.captions
    }

    assert {"LATIN CAPITAL LETTER A", "CYRILLIC CAPITAL LETTER A"} < set(names)
    assert not any("MATHEMATICAL BOLD" in name for split in images.values() for one in split for name in one.captions)
    learned = {one.picture.content for one in images["train"]}
    assert not [one.captions for one in images["test"] if one.picture.content in learned]


def test_a_broken_picture_is_named_or_skipped_and_counted(pictures: Path) -> None:
    path = pictures / "shapes" / "red_left.png"
    path.write_bytes(path.read_bytes()[:60])

    with pytest.raises(DataError, match=r"red_left\.png.*data\.on_error=skip"):
        prepared(files="shapes")
    data = prepared(files="shapes", on_error="skip")

    assert len(data.references("train")) == 15
    assert "1 unreadable images" in data.describe()
    path.unlink()
    with pytest.raises(DataError, match=r"red_left\.png: no such file"):
        prepared(files="shapes")


def test_another_picture_under_the_same_name_is_seen(pictures: Path) -> None:
    before = prepared(files="shapes").batch("train", BatchSpec(np.arange(1), 0), 1.0, scored=True).images
    path = pictures / "shapes" / "red_left.png"
    path.write_bytes((pictures / "shapes" / "blue_top.png").read_bytes() + b" ")

    after = prepared(files="shapes")

    assert not torch.equal(after.batch("train", BatchSpec(np.arange(1), 0), 1.0, scored=True).images, before)
    assert len(list((pictures / "cache").glob("captions-*.lock"))) == 2


def test_a_table_that_names_its_images_sees_them_change_whatever_its_format(pictures: Path) -> None:
    import pandas

    rows = [json.loads(line) for line in (pictures / "shapes" / "metadata.jsonl").read_text().splitlines()]
    pandas.DataFrame(rows).to_parquet(pictures / "shapes" / "named.parquet")
    before = prepared(files="shapes/named.parquet").batch("train", BatchSpec(np.arange(1), 0), 1.0, scored=True).images
    path = pictures / "shapes" / rows[0]["file_name"]
    path.write_bytes((pictures / "shapes" / rows[-1]["file_name"]).read_bytes())

    after = prepared(files="shapes/named.parquet").batch("train", BatchSpec(np.arange(1), 0), 1.0, scored=True).images

    assert not torch.equal(after, before)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        prepared(files="shapes/named.parquet")


def test_images_without_captions_are_counted_in_training_and_refused_elsewhere(pictures: Path) -> None:
    table = pictures / "shapes" / "metadata.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    rows[0]["captions"] = [" ", "?!"]
    table.write_text("\n".join(map(json.dumps, rows)))

    assert "1 images without a caption" in prepared(files="shapes").describe()
    with pytest.raises(DataError, match="image of the validation split has no caption"):
        prepared(files="shapes", validation_files="shapes/metadata.jsonl")


def test_images_that_their_folders_table_does_not_name_are_counted(pictures: Path) -> None:
    Image.new("RGB", (8, 8)).save(pictures / "shapes" / "forgotten.JPG", "JPEG")
    (pictures / "shapes" / "notes.txt").write_text("no image")

    data = prepared(files="shapes")
    assert "1 images without a caption" in data.describe()
    assert len(data.references("train")) == 16
    with pytest.raises(DataError, match=r"forgotten\.JPG: an image of the validation split has no caption"):
        prepared(files="shapes/metadata.jsonl", validation_files="shapes")

    # Of several tables in one folder, none says what all images are.
    (pictures / "shapes" / "metadata.jsonl").rename(pictures / "shapes" / "train.jsonl")
    assert "without a caption" not in prepared(files="shapes").describe()


def test_columns_that_are_taken_for_captions_are_named(pictures: Path) -> None:
    rows = [json.loads(line) for line in (pictures / "shapes" / "metadata.jsonl").read_text().splitlines()]
    rows = [{"file_name": row["file_name"], "caption": row["captions"][0], "caption_id": "7"} for row in rows]
    (pictures / "shapes" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))

    assert "shapes (captions: caption, caption_id): train" in prepared(files="shapes").describe()
    assert "(captions" not in prepared(files="shapes", captions="caption").describe()


def test_captions_without_images_are_refused(pictures: Path) -> None:
    (pictures / "shapes" / "metadata.jsonl").write_text(json.dumps({"file_name": None, "captions": ["a"]}))
    with pytest.raises(DataError, match="line 1, column 'file_name' contains no image"):
        prepared(files="shapes")
    (pictures / "shapes" / "metadata.jsonl").write_text(json.dumps({"picture": "x.png", "captions": ["a"]}))
    with pytest.raises(DataError, match="no column image, file_name"):
        prepared(files="shapes")
    with pytest.raises(DataError, match="no column matches 'captoins'; did you mean captions"):
        prepared(files="shapes", image="picture", captions="captoins")


def test_long_captions_are_left_out_and_counted(pictures: Path) -> None:
    data = prepared(files="shapes", max_length=5)

    assert "16 long captions" in data.describe()
    assert all(len(several) == 1 for several in data.references("train"))
    with pytest.raises(DataError, match="no training image is left"):
        prepared(files="shapes", max_length=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"files": "a", "glyphs": 1}, "files and glyphs|glyphs and files"),
        ({}, "got none"),
        ({"files": "a", "unit": "byte"}, "unit='byte'"),
        ({"files": "a", "on_error": "ignore"}, "'ignore'"),
        ({"files": "a", "features": "kept"}, "'kept'"),
        ({"files": "a", "batch_tokens": 0}, "batch_tokens=0"),
        ({"files": "a", "transform": {"size": 0}}, "transform: size=0"),
        ({"files": "a", "split_fractions": (1, 1, 0)}, "split_fractions="),
    ],
)
def test_impossible_options_are_refused(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        CaptionData(**{"transform": TRANSFORM, **options})


def test_the_processor_of_a_trained_network_is_kept_with_its_transform(pictures: Path) -> None:
    processor = prepared(files="shapes").processor()
    plain = json.loads(json.dumps(processor.to_dict()))

    data = prepared(files="shapes", processor_from=plain, transform={"size": 99})

    assert data.processor().to_dict() == processor.to_dict()
    assert data.batch("train", BatchSpec(np.arange(2), 0), 1.0, scored=True).images.shape == (2, 3, 12, 12)
    with pytest.raises(DataError, match="captioning needs an ImageTransform"):
        prepared(files="shapes", processor_from=Processor(processor.target).to_dict())


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 70])
def test_arrays_and_pictures_come_back_in_any_order(tmp_path: Path, count: int, generator: torch.Generator) -> None:
    arrays = torch.randn(count, 3, 2, generator=generator)
    write_arrays(tmp_path / "a.arrow", iter(arrays))
    write_encoded_images(
        tmp_path / "p.arrow",
        (EncodedImage(bytes([i]), "") if i % 2 else EncodedImage(None, str(i)) for i in range(count)),
    )
    order = torch.randperm(count, generator=generator).numpy()

    read, pictures = Arrays(tmp_path / "a.arrow").read(order), EncodedImages(tmp_path / "p.arrow")

    assert len(read) == count
    if count:
        torch.testing.assert_close(read, arrays[order].half().float(), rtol=0, atol=0)
    assert [one.source for one in pictures] == [bytes([i]) if i % 2 else str(i) for i in range(count)]


def test_images_are_the_same_with_workers(pictures: Path) -> None:
    alone, ahead = (
        list(prepared(files="shapes", horizontal_flip=True, batch_tokens=12, workers=workers).train_dataloader())
        for workers in (0, 2)
    )

    assert len(alone) > 3
    for one, other in zip(alone, ahead, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
        assert (one.scale, one.places) == (other.scale, other.places)
