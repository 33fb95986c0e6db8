"""Classification of recordings from the command line to an answer: learned, resumed, shared between processes, used."""

import json
import math
import struct
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.deployment import Session, classify
from unrolled.training.run.runner import run

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]

QUIET = ["callbacks.progress=null", "callbacks.curves=null", "+trainer.enable_progress_bar=false", "trainer=cpu"]
SMALL = [*QUIET, "model.hidden_size=16", "model.num_layers=1", "model.dropout=0", "network.output_dropout=0"]
NO_DROPOUT = "encoder.frame.input_dropout=0"
SOUND = [
    "task=classification",
    "data=speech",
    "data.files=tones",
    "data.split_fractions=[0.7,0.15,0.15]",
    "data.batch_size=8",
    "data.modality.features.num_mels=12",
    "encoder.frame.hidden_size=null",
    NO_DROPOUT,
    "optimizer.lr=1e-2",
    *SMALL,
]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def wav(path: Path, samples: list[float], rate: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(struct.pack(f"<{len(samples)}h", *(round(32000 * s) for s in samples)))
    return path


@pytest.fixture
def tones(folder: Path) -> Path:
    """Rising and falling tones: the spectrum over all of a recording is the same."""
    for n in range(16):
        for label, sign in (("rising", 1), ("falling", -1)):
            time = [(s - 800) / 8000 for s in range(1600)]
            samples = [0.5 * math.sin(2 * math.pi * (900 + 20 * n + sign * 3000 * t) * t) for t in time]
            wav(folder / "tones" / label / f"{n}.wav", samples)
    return folder


def test_rising_is_told_from_falling(tones: Path, configure: Configure) -> None:
    pytest.importorskip("soundfile")

    numbers = run(configure("run", *SOUND, "model=gru", "trainer.max_epochs=25", small=False))

    assert numbers["test/accuracy"] == 1.0


def test_resuming_goes_on_with_the_same_changes_and_weights(tones: Path, configure: Configure) -> None:
    pytest.importorskip("soundfile")
    common = [*SOUND, "trainer.max_epochs=4", "trainer.val_check_interval=1.0", "test=false", "scheduler=none"]
    common += ["data.modality.augmentation.speed=0.2"]
    run(configure("whole", *common, small=False))
    run(configure("begun", *common, "trainer.max_epochs=2", small=False))

    run(configure("resumed", *common, f"resume={tones / 'begun' / 'checkpoints' / 'last.ckpt'}", small=False))

    expected = weights(tones / "whole" / "checkpoints" / "last.ckpt")
    for name, value in weights(tones / "resumed" / "checkpoints" / "last.ckpt").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


@pytest.mark.distributed
def test_two_processes_equal_one_with_their_joint_batch(tones: Path, python: Process, train_script: str) -> None:
    pytest.importorskip("soundfile")
    common = [*SOUND, "trainer.max_steps=6", "trainer.accelerator=cpu", "callbacks/gradient_clip=norm"]
    one = python(train_script, *common, "data.batch_size=8", "hydra.run.dir=one")
    two = python(train_script, *common, "data.batch_size=4", "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two")

    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    expected = weights(tones / "one" / "checkpoints" / "last.ckpt")
    for name, value in weights(tones / "two" / "checkpoints" / "last.ckpt").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    scores = [json.loads((tones / run / "summary.json").read_text()) for run in ("one", "two")]
    for name in ("test/loss", "test/accuracy", "test/auroc", "test/calibration_error", "test/early_accuracy"):
        assert scores[0][name] == pytest.approx(scores[1][name], abs=1e-3)
    answered = [(tones / run / "predictions.jsonl").read_text().splitlines() for run in ("one", "two")]
    for one_line, two_line in zip(*answered, strict=True):
        assert json.loads(one_line)["prediction"] == json.loads(two_line)["prediction"]


def test_recordings_are_classified_and_heard(tones: Path, configure: Configure, python: Process) -> None:
    soundfile = pytest.importorskip("soundfile")
    options = [
        "encoder.frame.bidirectional=false",
        "data.modality.features.normalization=running",
        "trainer.max_epochs=2",
    ]
    run(configure("run", *SOUND, *options, small=False))
    checkpoint = tones / "run" / "checkpoints" / "best.ckpt"
    bundle = load_bundle(checkpoint)
    path = tones / "tones" / "rising" / "3.wav"
    samples, rate = soundfile.read(path, dtype="float32")
    listener = Session(bundle, rate=rate)

    (expected,) = classify(bundle, [str(path)])
    heard = [listener.feed(piece) for piece in torch.from_numpy(samples).split(70)]

    assert heard[0] is None
    assert heard[-1] is not None
    assert heard[-1].values == pytest.approx(expected.values, abs=1e-5)
    assert listener.finish().values == pytest.approx(expected.values, abs=1e-5)
    (again,) = classify(bundle, [(torch.from_numpy(samples), rate)])
    assert again.values == pytest.approx(expected.values, abs=1e-5)
    done = python("-m", "unrolled", "classify", str(checkpoint), str(path))
    assert done.stdout.split("\t")[:2] == [str(path), expected.label]
    wav(tones / "fast.wav", samples.tolist(), rate=16000)
    wav(tones / "empty.wav", [])
    fast = python("-m", "unrolled", "classify", str(checkpoint), "fast.wav", "fast.wav")
    assert fast.stderr.count("rate of 16000 Hz; it is resampled to 8000 Hz") == 1
    some = python(
        "-m",
        "unrolled",
        "classify",
        str(checkpoint),
        "empty.wav",
        "--json",
        str(path),
        "--on-error",
        "skip",
        "none.wav",
    )
    assert [json.loads(line)["source"] for line in some.stdout.splitlines()] == [str(path)]
    assert some.returncode == 0
    assert "skipped: empty.wav has no samples" in some.stderr
    assert "2 of 3 sources skipped" in some.stderr
    for arguments, message in (
        (["--Json", str(path)], "unrecognized arguments: --Json"),
        (["empty.wav"], "empty.wav has no samples"),
        (["none.wav"], "none.wav: no such file"),
        ([], "pass recordings to classify"),
    ):
        done = python("-m", "unrolled", "classify", str(checkpoint), *arguments)
        assert (done.returncode, message in done.stderr) == (2, True)
        assert "Traceback" not in done.stderr
