"""Drawing from the command line to pictures: learned, resumed, shared between processes, scored, used."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from unrolled import PixelTransform, Processor, load_bundle
from unrolled.deployment import draw_images, picture_of, reconstruct
from unrolled.training.run.runner import run, score
from unrolled_tasks.draw import Drawing
from unrolled_tasks.tagging import TaggingData

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]
QUIET = ["task=draw", "trainer=cpu", "callbacks.progress=null", "callbacks.curves=null"]
QUIET += ["+trainer.enable_progress_bar=false"]
TINY = [*QUIET, "data=pixels", "data.files=bars", "data.batch_size=8", "network.hidden_size=12"]
TINY += ["network.latent_size=2", "network.num_glimpses=3", "network.read_size=2", "network.write_size=2"]


@pytest.fixture
def bars(folder: Path) -> Path:
    """Images of 4 × 4 pixels with one white row or column: eight images, log 8 = 2.08 nats."""
    (folder / "bars").mkdir()
    for number in range(64):
        image = torch.zeros(4, 4, dtype=torch.uint8)
        image[(number % 4,) if number % 8 < 4 else (slice(None), number % 4)] = 255
        Image.fromarray(image.numpy()).save(folder / "bars" / f"{number:02}.png")
    return folder


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("attention", [True, False])
def test_a_handful_of_images_is_learned(attention: bool, bars: Path, configure: Configure) -> None:
    options = [
        "trainer.max_epochs=120",
        "optimizer=adam",
        "optimizer.lr=1e-2",
        "scheduler=none",
        "callbacks.samples=null",
    ]
    options += ["callbacks.pictures=null", "data.split_fractions=[0.5,0.25,0.25]", "trainer.check_val_every_n_epoch=40"]
    options += [
        "network.hidden_size=32",
        "network.num_glimpses=4",
        "data.batch_size=16",
        "callbacks/gradient_clip=none",
    ]
    options += [
        "network.filter_deviation=0.4",
        *(f"network.{name}={4 if attention else 'null'}" for name in ("read_size", "write_size")),
    ]
    run(configure("run", *TINY, *options, small=False))

    found = summary(bars / "run")
    assert found["baseline/loss"] > 7.0
    assert found["test/loss"] < 6.5
    assert found["test/loss"] > 2.0794  # the bound is above the entropy of eight images
    assert found["test/loss"] == pytest.approx(found["test/reconstruction"] + found["test/kl"], rel=1e-5)
    for name in Drawing.files:
        assert (bars / "run" / name).stat().st_size > 100
    with (bars / "run" / "bounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["example"]) for row in rows] == list(range(16))
    assert sum(float(row["bound"]) for row in rows) / 16 == pytest.approx(found["test/loss"], abs=1e-3)


def test_the_default_trains_and_draws_while_it_does(folder: Path, configure: Configure) -> None:
    run(configure("run", *QUIET, "trainer.max_epochs=1", "network.num_glimpses=4", "model=gru", small=False))

    found = summary(folder / "run")
    assert 0.0 < found["test/kl"] < found["test/loss"] < 45.0  # 64 pixels of probability ½ are 44.4 nats
    for name in ("samples", "reconstructions"):
        with Image.open(folder / "run" / "pictures" / f"{name}.png") as picture:
            assert picture.width > picture.height / 2 > 100
    assert "█" in (folder / "run" / "samples.md").read_text() or "▒" in (folder / "run" / "samples.md").read_text()


@pytest.mark.parametrize("binarize", ["threshold", "resampled"])
def test_a_resumed_run_ends_like_one_that_was_not(binarize: str, bars: Path, configure: Configure) -> None:
    common = [*TINY, f"data.binarize={binarize}", "test=false", "scheduler=none", "callbacks.pictures=null"]
    run(configure("one", *common, "trainer.max_epochs=3", small=False))
    run(configure("part", *common, "trainer.max_steps=10", "trainer.max_epochs=-1", small=False))
    last = bars / "part" / "checkpoints" / "last.ckpt"
    run(configure("rest", *common, "trainer.max_epochs=3", f"resume={last}", small=False))

    one, other = (load_bundle(bars / name / "checkpoints" / "last.ckpt").network for name in ("one", "rest"))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.distributed
def test_two_processes_are_one_with_the_joined_batch(bars: Path, python: Process, train_script: str) -> None:
    common = [*TINY, "model.dropout=0", "trainer.max_steps=6", "trainer.max_epochs=-1", "callbacks.pictures=null"]

    one = python(train_script, *common, "data.batch_size=8", "hydra.run.dir=one")
    two = python(train_script, *common, "data.batch_size=4", "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two")

    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    for name in ("loss", "reconstruction", "kl"):
        found, same = (summary(bars / run)[f"test/{name}"] for run in ("one", "two"))
        assert found == pytest.approx(same, rel=1e-4), name


def test_scoring_and_the_command(bars: Path, configure: Configure, python: Process) -> None:
    run(configure("run", *TINY, "trainer.max_epochs=1", small=False))
    checkpoint = bars / "run" / "checkpoints" / "best.ckpt"
    more = ["data=pixels", "data.files=bars", "data.split_fractions=[0,0,1]"]
    found = score(configure("score", "task=draw", f"checkpoint={checkpoint}", *more, name="evaluate", small=False))
    assert found["test/loss"] == pytest.approx(found["test/reconstruction"] + found["test/kl"], rel=1e-5)

    def command(*options: str) -> subprocess.CompletedProcess[str]:
        return python("-m", "unrolled", "draw", str(checkpoint), *options)

    one, again = command("--num", "5", "--seed", "1"), command("--num", "5", "--seed", "1", "--out", "again.png")
    assert one.returncode == again.returncode == 0, one.stderr
    assert one.stdout == ""
    assert (bars / "canvases.png").read_bytes() == (bars / "again.png").read_bytes()
    with Image.open(bars / "canvases.png") as picture:
        assert picture.size == (3 * 90 + 6, 5 * 90 + 6)  # 4 pixels of 21 each, and the gap: three canvases, five images
    given = command("bars/00.png", "bars/05.png", "--columns", "1", "--out", "out/again.webp")
    assert given.returncode == 0, given.stderr
    lines = [line.split("\t") for line in given.stdout.splitlines()]
    assert [line[0] for line in lines] == ["bars/00.png", "bars/05.png"]
    for line in lines:
        assert float(line[1]) == pytest.approx(float(line[2]) + float(line[3]), abs=0.011)
    with Image.open(bars / "out" / "again.webp") as picture:
        assert picture.size == (2 * 90 + 6, 2 * 90 + 6)

    for options, message in (
        (["--num", "0"], "num=0: expected 1 image or more"),
        (["--columns", "0"], "--columns 0: expected 1 or more"),
        (["--out", "canvases.txt"], "--out canvases.txt: a picture ends in .png"),
        (["bars/missing.png"], "bars/missing.png: no such file"),
    ):
        wrong = command(*options)
        assert wrong.returncode == 2, options
        assert message in wrong.stderr
        assert len(wrong.stderr.splitlines()) == 1


def test_pictures_show_where_the_network_wrote(bars: Path, configure: Configure) -> None:
    run(configure("run", *TINY, "trainer.max_epochs=1", "test=false", small=False))
    bundle = load_bundle(bars / "run" / "checkpoints" / "best.ckpt")
    generator = torch.Generator().manual_seed(0)

    glimpses = draw_images(bundle, 7, generator=generator)
    found = reconstruct(bundle, [bars / "bars" / "00.png"], generator=generator)

    def colors(picture: Any) -> set[tuple[int, ...]]:
        return {color for _, color in picture.getcolors(1 << 20)}

    gray = {color for color in colors(picture_of(glimpses, boxes=False)) if len(set(color)) == 1}
    assert gray == colors(picture_of(glimpses, boxes=False))
    assert colors(picture_of(glimpses)) - gray == {(215, 40, 40)}  # it writes, and there is nothing to read
    assert colors(picture_of(found.glimpses, found.images)) - gray >= {(215, 40, 40), (40, 150, 70)}
    assert picture_of(glimpses, columns=1).size == (3 * 90 + 6, 3 * 90 + 6)  # seven in three rows
    torch.testing.assert_close(found.bound.total, found.bound.reconstruction + found.bound.kl)
    with pytest.raises(ValueError, match="columns=0"):
        picture_of(glimpses, columns=0)
    with pytest.raises(ValueError, match="there is no image"):
        reconstruct(bundle, [])


def test_other_networks_and_data_are_refused(folder: Path, configure: Configure, python: Process) -> None:
    core = {"_target_": "unrolled.Recurrent", "_partial_": True, "hidden_size": 4}
    core["cell"] = {"_target_": "unrolled.LSTMCell", "_partial_": True}
    network = {"_target_": "unrolled.DRAW", "image_size": [4, 4], "core": core}
    task = Drawing(network=network, processor=Processor(PixelTransform((4, 4))))
    with pytest.raises(ValueError, match="Drawing needs DrawingData, not a TaggingData"):
        task.attach(TaggingData(dates=1))
    run(configure("other", "trainer.max_steps=1", "test=false"))
    wrong = python("-m", "unrolled", "draw", "other/checkpoints/last.ckpt")
    assert wrong.returncode == 2
    assert "drawing needs a DRAW network; this checkpoint contains an AutoregressiveDecoder" in wrong.stderr
