"""Images to draw from files of every kind, and what is wrong with them."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from unrolled.training.data.base import DataError
from unrolled_tasks.draw import DrawingData

COUNT, SHAPE = 20, (6, 5)


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.randint(256, (COUNT, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def written(folder: Path, kind: str, pictures: torch.Tensor) -> dict[str, Any]:
    arrays = list(pictures.numpy())
    if kind.startswith("idx"):
        content = struct.pack(">I3I", 0x803, *pictures.shape) + pictures.numpy().tobytes()
        path = folder / ("train-images-idx3-ubyte" if kind == "idx" else "train-images-idx3-ubyte.gz")
        path.write_bytes(content if kind == "idx" else gzip.compress(content))
        return {"files": str(path)}
    (folder / "images").mkdir()
    names = [f"{number:02}.png" for number in range(COUNT)]
    for name, array in zip(names, arrays, strict=True):
        Image.fromarray(array).save(folder / "images" / name)
    if kind == "folder":
        return {"files": str(folder / "images")}
    if kind == "hub":
        rows = [{"image": {"path": None, "bytes": (folder / "images" / name).read_bytes()}} for name in names]
        features = datasets.Features(image=datasets.Image())
        datasets.Dataset.from_list(rows, features=features).save_to_disk(folder / "hub")
        return {"dataset": str(folder / "hub")}
    lines = [json.dumps({"picture": f"images/{name}"}) for name in names]
    (folder / "x.jsonl").write_text("\n".join(lines))
    return {"files": str(folder / "x.jsonl"), "image": "picture"}


@pytest.mark.parametrize("kind", ["idx", "idx.gz", "folder", "jsonl", "hub"])
def test_every_source_gives_the_same_images_and_each_once(kind: str, folder: Path, pictures: torch.Tensor) -> None:
    data = DrawingData(**written(folder, kind, pictures), binarize="none", batch_size=6)

    data.prepare()

    assert data.sizes() == {"height": 6, "width": 5, "channels": 1}
    assert data.splits() == ("train", "validation", "test")
    every = torch.cat([data.read(split, range(data.count(split)), 0)[0] for split in data.splits()])
    found = sorted((every[:, 0] * 255).round().to(torch.uint8).flatten(1).tolist())
    assert found == sorted(pictures.flatten(1).tolist())
    batches = list(data.train_dataloader())
    assert sorted(n for batch in batches for n in batch.examples.tolist()) == list(range(data.count("train")))
    assert sum(batch.scale for batch in batches) == pytest.approx(sum(1 / len(batch.images) for batch in batches))


def test_pixels_are_binarized_as_is_asked(folder: Path, pictures: torch.Tensor) -> None:
    source = written(folder, "idx", pictures)

    def read(binarize: str, *epochs: int) -> list[torch.Tensor]:
        data = DrawingData(**source, binarize=binarize, split_fractions=(1.0, 0.0, 0.0), seed=3)
        data.prepare()
        return [data.read("train", range(COUNT), epoch)[0] for epoch in epochs]

    (intensities,), (halves,) = read("none", 0), read("threshold", 0)
    assert torch.equal(halves, (intensities >= 0.5).float())
    once, again = read("sampled", 0, 1)
    assert torch.equal(once, again)
    first, second = read("resampled", 0, 1)
    assert torch.equal(first, once)
    assert not torch.equal(first, second)
    assert set(once.unique().tolist()) == {0.0, 1.0}
    many = torch.stack(read("resampled", *range(400))).mean(0)
    error = (intensities * (1 - intensities) / 400).sqrt()
    assert float(((many - intensities).abs() - 5 * error).max()) < 1e-6  # with its intensity as probability


def test_random_numbers_follow_from_the_example_and_the_epoch(folder: Path, pictures: torch.Tensor) -> None:
    data = DrawingData(**written(folder, "idx", pictures), batch_size=4)
    data.prepare()

    loader = data.train_dataloader()
    epochs = [{int(n): seed for b in loader for n, seed in zip(b.examples, b.seeds, strict=True)} for _ in range(2)]
    scored = [seed for batch in data.val_dataloader() for seed in batch.seeds]

    assert epochs[0].keys() == epochs[1].keys()
    every = [*epochs[0].values(), *epochs[1].values(), *scored]
    assert len(set(every)) == len(every)
    assert [seed for batch in data.val_dataloader() for seed in batch.seeds] == scored


def test_a_size_and_colors_can_be_given(folder: Path) -> None:
    for number, color in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]):
        Image.new("RGB", (8 + number, 8), color).save(folder / f"{number}.png")
    data = DrawingData(files=str(folder), size=4, color=True, binarize="none", split_fractions=(1, 0, 0))

    data.prepare()

    assert data.sizes() == {"height": 4, "width": 4, "channels": 3}
    found = {tuple((image.mean((1, 2)) * 255).round().int().tolist()) for image in data.read("train", range(4), 0)[0]}
    assert found == {(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)}


def test_the_digits_need_no_file() -> None:
    data = DrawingData(package="digits")
    data.prepare()

    assert sum(data.count(split) for split in data.splits()) == 1797
    assert data.sizes() == {"height": 8, "width": 8, "channels": 1}
    assert data.describe() == (
        "train 1,437, validation 180, test 180 images of 8 × 8 pixels, binarized at ½; scored: test"
    )


def labels(folder: Path) -> str:
    (folder / "labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 3) + bytes(3))
    return "labels-idx1-ubyte"


def broken(folder: Path) -> str:
    Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:40])
    return "[ab].png"


def table(folder: Path) -> str:
    (folder / "x.jsonl").write_text('{"image": "missing.png"}')
    return "x.jsonl"


def number(folder: Path) -> str:
    (folder / "x.jsonl").write_text('{"image": 5}')
    return "x.jsonl"


def text(folder: Path) -> str:
    (folder / "x.txt").write_text("no image")
    return "x.txt"


def empty(folder: Path) -> str:
    (folder / "images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 0, 4, 4))
    return "images-idx3-ubyte"


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (labels, {}, r"labels-idx1-ubyte contains an array of shape \(3,\), not images"),
        (broken, {}, r"b\.png: not readable as an image"),
        (table, {}, r"x\.jsonl, line 1: .*missing\.png: no such file"),
        (table, {"image": "picture"}, r"x\.jsonl, line 1: no column 'picture'.*Set data\.image"),
        (number, {}, r"x\.jsonl, line 1: column 'image' contains 5, not an image"),
        (text, {}, r"x\.txt: expected images \(\.png"),
        (empty, {}, "there are no images in these files"),
        (broken, {"max_pixels": 80}, r"a\.png: 9 × 9 points, and max_pixels=80"),
        (broken, {"binarize": "half"}, "binarize='half' must be one of threshold, sampled, resampled, none"),
        (broken, {"package": "digits"}, "give exactly one of files, dataset, package for images"),
        (broken, {"size": [0, 3]}, r"size=\[0, 3\]"),
    ],
)
def test_what_cannot_be_drawn_is_named(make: Any, options: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        DrawingData(files=make(folder), **options).prepare()


def test_a_network_reads_images_as_it_learned_them(folder: Path, pictures: torch.Tensor) -> None:
    source = written(folder, "idx", pictures)
    learned = DrawingData(**source, size=4)
    learned.prepare()
    plain = learned.processor().to_dict()

    data = DrawingData(**source, processor_from=plain, split_fractions=(0, 0, 1))
    data.prepare()

    assert data.sizes() == learned.sizes()
    assert data.count("test") == COUNT
    with pytest.raises(DataError, match=r"images that are binary; set data\.binarize=threshold"):
        DrawingData(**source, processor_from=plain, binarize="none")
