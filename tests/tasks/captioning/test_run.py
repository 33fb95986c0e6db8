"""Captioning from the command line to a caption: learned, looked at once, fine-tuned, self-critical, resumed, used."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.deployment import CAPTIONS, caption, captions
from unrolled.processing.transform import Processor
from unrolled.training.run.runner import run, score

Image = pytest.importorskip("PIL.Image")
Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]

TINY = [
    "task=captioning",
    "data=captioned_images",
    "data.files=shapes",
    "data.validation_files=shapes",
    "data.test_files=shapes",
    "data.min_count=1",
    "data.batch_tokens=240",
    "trunk.module.channels=3",
    "trunk.module.widths=[8,16]",
    "trunk.module.strides=[2,2]",
    "trunk.module.norm=group",
    "network.encoder.norm=layer",
    "trunk.transform={size:12,fit:crop,crop:1.0,grey:false,mean:[0.5,0.5,0.5],std:[0.5,0.5,0.5]}",
    "model=gru",
    "model.hidden_size=24",
    "model.dropout=0",
    "attention.attention_size=16",
    "network.encoder.size=24",
    "decoder.embedding.size=24",
    "optimizer.lr=1e-2",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "task.search.max_extra=8",
    "callbacks.alignments.count=1",  # drawing takes longer than the network
    "callbacks.progress=null",
    "callbacks.curves=null",
    "+trainer.enable_progress_bar=false",
]
STILL = ["network.encoder.dropout=0", "decoder.input_dropout=0", "decoder.output_dropout=0"]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


@pytest.fixture
def trained(pictures: Path, configure: Configure) -> Path:
    run(configure("run", *TINY, small=False))
    return pictures / "run" / "checkpoints" / "best.ckpt"


def test_photographs_are_seen_in_color(pictures: Path, configure: Configure) -> None:
    options = [option for option in TINY if not option.startswith("trunk.")]

    run(configure("run", *options, "trunk=small_color", "trainer.max_steps=1", "test=false", small=False))

    bundle = load_bundle(pictures / "run" / "checkpoints" / "last.ckpt")
    transform = bundle.processor.source
    red, blue = (transform.encode(Image.new("RGB", (200, 100), color)) for color in ("red", "blue"))
    assert red.shape == (3, 96, 96)
    assert not torch.equal(red, blue)
    assert bundle.network.encoder.trunk(red[None]).shape == (1, 256, 6, 6)


@pytest.mark.parametrize("decoder", ["show_tell", "show_attend_tell", "up_down", "attentive"])
@pytest.mark.parametrize("model", ["elman", "gru", "lstm"])
def test_every_cell_and_decoder_trains(pictures: Path, configure: Configure, model: str, decoder: str) -> None:
    options = [f"model={model}", f"decoder={decoder}", "trainer.max_steps=2", "+trainer.limit_val_batches=1"]

    numbers = run(configure("run", *TINY, *options, small=False))

    assert 0 < numbers["test/loss"] < 5
    assert (pictures / "run" / "alignments" / "1.png").exists() == (decoder != "show_tell")


def test_it_learns_what_it_sees(pictures: Path, configure: Configure) -> None:
    numbers = run(
        configure("run", *TINY, *STILL, "trainer.max_epochs=240", "+trainer.check_val_every_n_epoch=80", small=False)
    )

    assert numbers["test/exact"] == 100.0
    page = (pictures / "run" / "gallery.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 16
    assert page.count("http") == 0
    assert (pictures / "run" / "written.txt").read_text().count("\n") == 16
    assert "| half |" in (pictures / "run" / "captions.md").read_text()


def test_looking_once_is_looking_each_time(pictures: Path, configure: Configure) -> None:
    frozen = [*TINY, "task.unfreeze_at_step=null", "trainer.max_epochs=1", "trunk.module.norm=batch"]
    live = run(configure("live", *frozen, small=False))
    cached = run(configure("cached", *frozen, "data.features=cached", small=False))

    # The cache holds 16-bit floats.
    assert cached["test/loss"] == pytest.approx(live["test/loss"], rel=1e-3)
    folders = list((pictures / "cache").glob("features-*"))
    assert len([folder for folder in folders if folder.is_dir()]) == 1
    run(configure("again", *frozen, "data.features=cached", small=False))
    assert len([f for f in (pictures / "cache").glob("features-*") if f.is_dir()]) == 1
    spelled = ["data.features=cached", "data.clean=false"]
    run(configure("spelled", *frozen, *spelled, small=False))  # the same images
    start = f"init_from={pictures / 'cached' / 'checkpoints' / 'last.ckpt'}"
    run(configure("second", *frozen, "data.features=cached", start, small=False))
    assert len([f for f in (pictures / "cache").glob("features-*") if f.is_dir()]) == 1
    run(configure("other", *frozen, "data.features=cached", "seed=2", small=False))
    assert len([f for f in (pictures / "cache").glob("features-*") if f.is_dir()]) == 2  # another trunk
    transform = "trunk.transform.std=[0.4,0.5,0.5]"
    run(configure("third", *frozen, "data.features=cached", transform, small=False))
    assert len([f for f in (pictures / "cache").glob("features-*") if f.is_dir()]) == 3


def test_looking_once_is_looking_each_time_in_a_mirror_too(pictures: Path, configure: Configure) -> None:
    frozen = [
        *TINY,
        "task.unfreeze_at_step=null",
        "trainer.max_epochs=1",
        "trunk.module.norm=batch",
        "data.horizontal_flip=true",
    ]
    live = run(configure("live", *frozen, small=False))
    plain = run(configure("plain", *frozen, "data.horizontal_flip=false", small=False))
    cached = run(configure("cached", *frozen, "data.features=cached", small=False))

    assert cached["test/loss"] == pytest.approx(live["test/loss"], rel=1e-3)
    assert plain["test/loss"] != pytest.approx(live["test/loss"], rel=1e-2)


def test_a_trunk_that_learns_is_not_looked_through_once(pictures: Path, configure: Configure) -> None:
    with pytest.raises(ValueError, match=r"features=cached .*task\.unfreeze_at_step"):
        run(configure("run", *TINY, "data.features=cached", "task.unfreeze_at_step=0", small=False))


def test_the_trunk_learns_from_its_step_on_at_its_own_rate(pictures: Path, configure: Configure) -> None:
    def trunk_after(name: str, *options: str) -> torch.Tensor:
        run(configure(name, *TINY, "test=false", "trainer.max_epochs=3", *options, small=False))
        return weights(pictures / name / "checkpoints" / "last.ckpt")["network.encoder.trunk.stages.0.first.weight"]

    never = trunk_after("never", "task.unfreeze_at_step=null", "trainer.max_steps=1")
    same = trunk_after("same", "task.unfreeze_at_step=null", "trainer.max_steps=3")
    late = trunk_after("late", "task.unfreeze_at_step=2", "task.trunk_lr=1e-6", "trainer.max_steps=3")
    later = trunk_after("later", "task.unfreeze_at_step=3", "trainer.max_steps=3")
    whole = trunk_after("whole", "task.unfreeze_at_step=2", "trainer.max_steps=3")

    torch.testing.assert_close(same, never, rtol=0, atol=0)
    torch.testing.assert_close(later, never, rtol=0, atol=0)
    assert 0 < (late - never).abs().max() < 1e-5
    assert (whole - never).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["task.unfreeze_at_step=-1"], "unfreeze_at_step=-1"),
        (["task.unfreeze_at_step=null", "task.trunk_lr=1e-3"], "trunk_lr=0.001"),
        (["task.doubly_stochastic=-1"], "doubly_stochastic=-1"),
        (["decoder=show_tell", "task.doubly_stochastic=1"], "this network has none"),
        (["task.pretrained=own"], "SmallTrunk has no pretrained weights"),
        (["task.pretrained=none.pt"], "task.pretrained=none.pt: no such file"),
    ],
)
def test_impossible_options_are_refused(pictures: Path, configure: Configure, options: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run(configure("run", *TINY, *options, small=False))


def test_the_doubly_stochastic_weight_spreads_attention(pictures: Path, configure: Configure) -> None:
    def spread(name: str, weight: float) -> float:
        options = [f"task.doubly_stochastic={weight}", "trainer.max_epochs=25", "+trainer.check_val_every_n_epoch=25"]
        run(configure(name, *TINY, *STILL, *options, small=False))
        network: Any = load_bundle(pictures / name / "checkpoints" / "last.ckpt").network
        torch.manual_seed(0)
        state, memory = network.start(torch.rand(8, 3, 12, 12))
        found = network.decoder(torch.ones(8, 5, dtype=torch.long), state, memory).weights
        return float((found.sum(1) - found.sum(1).mean()).square().mean())

    assert spread("pressed", 10.0) < 0.5 * spread("free", 0.0)


def test_self_critical_training_starts_from_a_network_and_raises_its_reward(
    pictures: Path, configure: Configure
) -> None:
    begun = [*TINY, *STILL, "trainer.max_epochs=20", "+trainer.check_val_every_n_epoch=20", "scheduler=none"]
    before = run(configure("first", *begun, small=False))
    start = f"init_from={pictures / 'first' / 'checkpoints' / 'last.ckpt'}"
    second = ["task.self_critical=true", "optimizer.lr=3e-3", "trainer.max_epochs=100"]
    second += ["+trainer.check_val_every_n_epoch=100", "scheduler=none"]
    after = run(configure("second", *TINY, *STILL, start, *second, small=False))

    with (pictures / "second" / "metrics.csv").open() as file:
        rewards = [float(row["train/reward"]) for row in csv.DictReader(file) if row["train/reward"]]
    assert len(rewards) >= 10
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2  # of the samples, which is what is being learned
    assert 0.1 < before["test/cider_d"] <= after["test/cider_d"] < 9.9


def test_resuming_within_an_epoch_loses_no_batch(pictures: Path, configure: Configure) -> None:
    common = [*TINY, "data.batch_tokens=60", "trainer.max_epochs=3", "trainer.val_check_interval=2", "test=false"]
    common += ["scheduler=none"]  # a cosine follows the length of its run
    run(configure("whole", *common, small=False))
    run(configure("begun", *common, "trainer.max_steps=6", small=False))
    checkpoint = pictures / "begun" / "checkpoints" / "last.ckpt"
    place = torch.load(checkpoint, weights_only=True)["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]
    assert place["position"] > 0  # it is within an epoch indeed

    run(configure("resumed", *common, f"resume={checkpoint}", small=False))

    whole, resumed = (weights(pictures / name / "checkpoints" / "last.ckpt") for name in ("whole", "resumed"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


@pytest.mark.distributed
def test_two_processes_equal_one_with_their_joint_batch(pictures: Path, python: Process, train_script: str) -> None:
    common = [*TINY, *STILL, "trainer.max_steps=4", "trainer.accelerator=cpu", "callbacks/gradient_clip=norm"]
    common += ["task.doubly_stochastic=1.0"]
    one = python(train_script, *common, "data.batch_tokens=84", "hydra.run.dir=one")
    two = python(train_script, *common, "data.batch_tokens=42", "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two")

    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    expected = weights(pictures / "one" / "checkpoints" / "last.ckpt")
    for name, value in weights(pictures / "two" / "checkpoints" / "last.ckpt").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    assert (pictures / "one" / "written.txt").read_text() == (pictures / "two" / "written.txt").read_text()


def test_a_checkpoint_is_scored_again_to_the_same_numbers(trained: Path, pictures: Path, configure: Configure) -> None:
    summary = json.loads((pictures / "run" / "summary.json").read_text())
    options = ["task=captioning", "data=captioned_images", "data.files=shapes", "data.test_files=shapes", "trainer=cpu"]
    config = configure("scored", f"checkpoint={trained}", *options, name="evaluate", small=False)

    numbers = score(config)

    for name in ("loss", "bleu4", "cider_d", "rouge_l"):
        assert numbers[f"test/{name}"] == pytest.approx(summary[f"test/{name}"], rel=1e-5), name


def test_a_bundle_captions_paths_arrays_and_images_alike(trained: Path, pictures: Path) -> None:
    bundle = load_bundle(trained)
    path = pictures / "shapes" / "red_left.png"
    image = Image.open(path)

    found = list(caption(bundle, [path, str(path), path.read_bytes(), image, __import__("numpy").asarray(image)]))

    assert len(set(found)) == 1
    assert list(caption([bundle, bundle], [path])) == found[:1]  # two of the same decode as one
    rows = next(captions(bundle, [path], options=CAPTIONS._replace(n_best=3)))
    assert rows is not None
    assert rows[0].text == found[0]
    assert len(rows) == 3


def test_what_cannot_caption_is_refused(trained: Path, pictures: Path) -> None:
    bundle = load_bundle(trained)
    with pytest.raises(ValueError, match=r"red\.png: no such file"):
        list(caption(bundle, [pictures / "red.png"]))
    with pytest.raises(ValueError, match="no checkpoint"):
        caption([], [])
    with pytest.raises(ValueError, match="from an ImageTransform to a Tokenizer captions"):
        caption(bundle._replace(processor=Processor(bundle.processor.target)), [])
    with pytest.raises(ValueError, match="batch_size is 0"):
        caption(bundle, [], batch_size=0)


def test_the_command_writes_a_line_for_each_image(trained: Path, pictures: Path, python: Process) -> None:
    names = ["shapes/red_left.png", "shapes/blue_top.png"]
    (pictures / "broken.png").write_bytes((pictures / names[0]).read_bytes()[:50])

    done = python("-m", "unrolled", "caption", str(trained), *names)
    several = python("-m", "unrolled", "caption", str(trained), *names, "--n-best", "2", "--batch-size", "1")
    refused = python("-m", "unrolled", "caption", str(trained), names[0], "broken.png")
    skipped = python("-m", "unrolled", "caption", str(trained), "broken.png", *names, "--on-error", "skip")

    assert done.returncode == 0, done.stderr
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == names
    assert len(several.stdout.splitlines()) == 4
    assert refused.returncode == 2
    assert "broken.png: not readable as an image" in refused.stderr
    assert skipped.returncode == 0
    assert skipped.stdout == done.stdout
    assert "1 of 3 images skipped" in skipped.stderr
