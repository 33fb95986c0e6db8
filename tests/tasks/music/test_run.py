"""Music from the command line to a song: learned, scored, resumed, shared between processes, composed."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.deployment import compose
from unrolled.processing.notes.files import read_music
from unrolled.training.run.runner import run, score
from unrolled_tasks.music import Music
from unrolled_tasks.music.task import describe

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]
QUIET = ["task=music", "trainer=cpu", "callbacks.progress=null", "callbacks.curves=null", "callbacks.pictures=null"]
QUIET += ["callbacks.samples=null", "+trainer.enable_progress_bar=false"]
TINY = [*QUIET, "data=pieces", "data.files=x.jsonl", "data.batch_size=4", "network.hidden_size=12", "data.semitones=0"]
STILL = ["network.input_dropout=0", "network.output_dropout=0"]


@pytest.fixture
def songs(folder: Path) -> Path:
    """Two chords in turn, each held for two frames, from one of four roots."""
    rows = []
    for number in range(40):
        root = 60 + number % 4
        piece = [
            [root, root + 4, root + 7] if step % 4 < 2 else [root, root + 5, root + 9] for step in range(8 + number % 5)
        ]
        rows.append({"frames": piece})
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("window", ["null", "5"])
def test_it_learns_a_handful_by_heart(window: str, songs: Path, configure: Configure) -> None:
    options = [f"data.window={window}", "trainer.max_epochs=30", "optimizer.lr=3e-2", "network.hidden_size=32", *STILL]
    run(configure("run", *TINY, *options, small=False))

    found = summary(songs / "run")
    assert found["test/accuracy"] > 0.85  # the first frame alone can't be known
    assert found["test/loss_after_first"] < 0.3
    assert found["test/loss"] > found["test/loss_after_first"]
    for name in Music.files:
        assert (songs / "run" / name).stat().st_size > 10
    bundle = load_bundle(songs / "run" / "checkpoints" / "best.ckpt")
    piece = compose(bundle, [[61, 65, 68]] * 2, frames=6, temperature=0.0)
    other = [61, 66, 70]
    assert piece.frames == [[61, 65, 68], [61, 65, 68], other, other, [61, 65, 68], [61, 65, 68], other, other]
    assert piece.given == 2


def test_the_loss_is_the_sum_over_keys_and_the_mean_over_frames(songs: Path, configure: Configure) -> None:
    run(configure("run", *TINY, "trainer.max_epochs=2", "data.split_fractions=[0.8,0.1,0.1]", small=False))

    found = summary(songs / "run")
    bundle = load_bundle(songs / "run" / "checkpoints" / "best.ckpt")
    rows = [json.loads(line)["frames"] for line in (songs / "x.jsonl").read_text().splitlines()][-4:]
    network, roll = bundle.network.double(), bundle.processor.source
    totals, later, frames = 0.0, 0.0, 0
    hits, either = 0.0, 0.0
    for row in rows:
        targets = roll.encode(row).double()
        inputs = torch.cat([torch.zeros(1, 88), targets[:-1]]).double()
        with torch.no_grad():
            probabilities = network(inputs[None]).parameters[0].sigmoid()
        losses = -(targets * probabilities.log() + (1 - targets) * (1 - probabilities).log()).sum(1)
        totals, later, frames = totals + float(losses.sum()), later + float(losses[1:].sum()), frames + len(row)
        predicted, sounding = probabilities > 0.5, targets > 0.5
        hits, either = hits + float((predicted & sounding).sum()), either + float((predicted | sounding).sum())
    assert found["test/loss"] == pytest.approx(totals / frames, rel=1e-5)
    assert found["test/loss_after_first"] == pytest.approx(later / (frames - 4), rel=1e-5)
    assert found["test/accuracy"] == pytest.approx(hits / max(either, 1.0), rel=1e-5)
    lines = (songs / "run" / "pieces.csv").read_text().splitlines()
    assert lines[0] == "piece,frames,nats_per_frame"
    assert len(lines) == 5
    assert "x.jsonl, line" in lines[1]


@pytest.mark.parametrize("window", ["null", "5"])
def test_a_resumed_run_ends_like_one_that_was_not(window: str, songs: Path, configure: Configure) -> None:
    common = [*TINY, f"data.window={window}", "data.semitones=3", "scheduler=none", "test=false"]
    run(configure("one", *common, "trainer.max_epochs=2", small=False))
    run(configure("part", *common, "trainer.max_steps=5", "trainer.max_epochs=-1", small=False))
    last = songs / "part" / "checkpoints" / "last.ckpt"
    run(configure("rest", *common, "trainer.max_epochs=2", f"resume={last}", small=False))

    one, other = (load_bundle(songs / name / "checkpoints" / "last.ckpt").network for name in ("one", "rest"))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.distributed
@pytest.mark.parametrize("window", ["null", "5"])
def test_two_processes_are_one_with_the_joined_batch(
    window: str, songs: Path, python: Process, train_script: str
) -> None:
    common = [
        *TINY,
        *STILL,
        f"data.window={window}",
        "data.semitones=3",
        "trainer.max_steps=6",
        "trainer.max_epochs=-1",
    ]

    one = python(train_script, *common, "data.batch_size=8", "hydra.run.dir=one")
    two = python(train_script, *common, "data.batch_size=4", "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two")

    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    for name in ("loss", "loss_after_first", "accuracy"):
        found = [summary(songs / each)[f"test/{name}"] for each in ("one", "two")]
        assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_scores_depend_on_no_padding(songs: Path, configure: Configure) -> None:
    run(configure("run", *TINY, "trainer.max_epochs=1", small=False))
    checkpoint = songs / "run" / "checkpoints" / "best.ckpt"
    more = [
        "task=music",
        f"checkpoint={checkpoint}",
        "data=pieces",
        "data.files=x.jsonl",
        "data.split_fractions=[0,0,1]",
    ]

    found = [
        score(configure(f"s{size}", *more, f"data.batch_size={size}", name="evaluate", small=False)) for size in (1, 40)
    ]

    assert found[0]["test/loss"] == pytest.approx(found[1]["test/loss"], rel=1e-6)


def test_compose_continues_a_file(songs: Path, configure: Configure, python: Process) -> None:
    run(configure("run", *TINY, "trainer.max_epochs=1", "data.steps_per_beat=2", small=False))
    checkpoint = str(songs / "run" / "checkpoints" / "best.ckpt")

    def command(*options: str) -> subprocess.CompletedProcess[str]:
        return python("-m", "unrolled", "compose", checkpoint, *options)

    names = ["new.mid", "new.wav", "new.png", "new.jsonl"]
    outs = [word for name in names for word in ("--out", name)]
    done = command("--prime", "x.jsonl", "--prime-frames", "3", "--frames", "20", "--seed", "1", *outs)
    assert done.returncode == 0, done.stderr
    assert "new.mid: 23 frames, 3 of them given" in done.stderr
    frames = json.loads((songs / "new.jsonl").read_text())["frames"]
    assert frames[:3] == [[60, 64, 67], [60, 64, 67], [60, 65, 69]]
    last = max(number for number, frame in enumerate(frames, start=1) if frame)
    assert read_music(songs / "new.mid", 2) == frames[:last]
    again = command("--prime", "new.mid", "--frames", "4", "--seed", "1", "--out", "more.jsonl")
    assert again.returncode == 0, again.stderr
    assert json.loads((songs / "more.jsonl").read_text())["frames"][:last] == frames[:last]
    for options, message in (
        (("--out", "a.ogg"), "expected a file that ends in .mid"),
        (("--out", "a.mid", "--frames", "-1"), "frames=-1"),
        (("--out", "a.mid", "--prime", "absent.mid"), "absent.mid cannot be read"),
        (("--out", "a.mid", "--prime-frames", "2"), "--prime-frames 2: expected 1 or more, with --prime"),
        (("--out", "a.mid", "--tempo", "0"), "tempo=0.0"),
    ):
        wrong = command(*options)
        assert wrong.returncode == 2, wrong.stderr
        assert message in wrong.stderr
        assert "Traceback" not in wrong.stderr
    assert not (songs / "a.mid").exists()


def test_another_network_is_refused_and_pitches_outside_of_its_range(songs: Path, configure: Configure) -> None:
    run(configure("run", *TINY, "trainer.max_epochs=1", "data.low=60", "data.high=75", small=False))
    bundle = load_bundle(songs / "run" / "checkpoints" / "best.ckpt")
    with pytest.raises(ValueError, match="frame 1 has the pitch 40, outside of 60 to 75"):
        compose(bundle, [[40]])
    run(configure("text"))
    with pytest.raises(ValueError, match="composing needs a decoder of a piano roll"):
        compose(load_bundle(songs / "text" / "checkpoints" / "best.ckpt"))


def test_what_is_written_while_training(songs: Path, configure: Configure) -> None:
    shown = [each for each in TINY if "samples" not in each and "pictures" not in each]
    run(configure("run", *shown, "trainer.max_epochs=1", "task.sample_length=5", "test=false", small=False))

    assert "## Step" in (songs / "run" / "samples.md").read_text()
    assert (songs / "run" / "pictures" / "composed.png").read_bytes().startswith(b"\x89PNG")
    assert (songs / "run" / "pictures" / "composed.mid").read_bytes().startswith(b"MThd")


def test_frames_in_words() -> None:
    assert describe([[60, 64], [60, 64], [], [58]]) == "C4 E4 ×2 | rest | B♭3"


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pretty_midi", None)
    with pytest.raises(ValueError, match=r"MIDI files and sound need pretty_midi .*; pip install 'unrolled\[music\]'"):
        read_music(tmp_path / "a.mid", 1)
