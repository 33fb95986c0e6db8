"""The page on microcontrollers: its commands, as typed, take a checkpoint to a program that prints the word."""

import os
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import AudioFeatures, Bundle, build, build_processor, load_bundle
from unrolled.checkpoint import save_tensors
from unrolled.deployment import classify, export_c

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "how-to" / "microcontroller.md").read_text()
WORDS = ("one", "two", "six")
RATE = 8000


def word(place: int, take: int) -> Tensor:
    """A tone of its own for each word, with noise."""
    generator = torch.Generator().manual_seed(take)
    time = torch.arange(RATE // 2) / RATE
    tone = torch.sin(2 * torch.pi * (400.0 + 500.0 * place + 10.0 * take) * time)
    return 0.3 * tone + 0.02 * torch.randn(len(time), generator=generator)


def record(path: Path, samples: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).to(torch.int16).numpy().tobytes())


def typed(line: str, folder: Path) -> str:
    """Run a command line of the page in a folder, and return what it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        line,
        shell=True,
        executable="/bin/bash",
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"
    return done.stdout


def commands() -> list[str]:
    return [line.removeprefix("$ ") for line in PAGE.splitlines() if line.startswith("$ ")]


def follow(folder: Path) -> None:
    """Export the checkpoint of the folder, compile the page's program, and compare its words with those of Python."""
    export, compiling, running = commands()
    printed = typed(export, folder)
    assert "firmware/digits.c\t" in printed
    (program,) = re.findall(r"^```c\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (folder / "firmware" / "main.c").write_text(program)
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    assert typed(compiling, folder) == ""
    bundle = load_bundle(folder / "outputs" / "digits")
    for place in range(len(WORDS)):
        record(folder / "one.wav", word(place, 99))
        label, probability = typed(running, folder).split("\t")
        (expected,) = classify(bundle, [folder / "one.wav"])
        assert label == expected.label
        assert float(probability) == pytest.approx(expected.probability, abs=2e-4)  # it is printed with four digits


def description() -> dict[str, Any]:
    """The checkpoint of the page's training, with three words."""
    core: dict[str, Any] = {"_target_": "unrolled.Recurrent", "_partial_": True, "hidden_size": 64}
    core["cell"] = {"_target_": "unrolled.GRUCell", "_partial_": True}
    encoder = {"_target_": "unrolled.FeatureEncoder", "input_size": 20, "core": core, "bidirectional": False}
    head = {"_target_": "unrolled.CategoricalHead", "_partial_": True, "num_classes": len(WORDS)}
    pooling = {"_target_": "unrolled.MeanPooling", "_partial_": True}
    network = {"_target_": "unrolled.SequenceClassifier", "encoder": encoder, "head": head, "pooling": pooling}
    features = AudioFeatures(RATE, num_mels=20, window=0.032, hop=0.02, normalization="running")
    source = features.fit([word(place, 0) for place in range(len(WORDS))]).to_dict()
    target = {"_target_": "unrolled.LabelEncoder", "labels": list(WORDS)}
    return {"format": 2, "network": network, "processor": {"source": source, "target": target}, "info": {}}


def made() -> Bundle:
    """The network of the description, with random weights."""
    torch.manual_seed(0)
    described = description()
    return Bundle(build(described["network"]).eval(), build_processor(described["processor"]), {})


def test_the_commands_of_the_page_take_a_checkpoint_to_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {f"network.{name}": value for name, value in made().network.state_dict().items()}
    path = tmp_path / "outputs" / "digits" / "checkpoints" / "best.ckpt"
    save_tensors({"unrolled": description(), "state_dict": weights}, path)
    follow(tmp_path)
    written = (tmp_path / "firmware" / "digits.c").read_bytes()
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "firmware" / "digits.c").stat().st_size < len(written)  # with 8-bit weights


@pytest.mark.slow
def test_the_code_for_a_microcontroller_is_as_small_as_the_page_says(tmp_path: Path) -> None:
    (command,) = re.findall(r"`(arm-none-eabi-gcc [^`]+)`", PAGE)
    (size,) = re.findall(r"The functions take ([\d.]+) kB of flash there", PAGE)
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    export_c(made(), name="digits").write(tmp_path)
    flags = "-std=c99 -Wall -Wextra -Werror -pedantic -c digits.c"
    typed(f"{' '.join(command.split())} {flags}", tmp_path)
    sections = typed("arm-none-eabi-size -A digits.o", tmp_path)
    assert int(re.findall(r"^\.text\s+(\d+)", sections, re.MULTILINE)[0]) == pytest.approx(1000 * float(size), rel=0.1)


@pytest.mark.slow
def test_the_whole_page_from_recordings_on(tmp_path: Path) -> None:
    for place, name in enumerate(WORDS):
        for take in range(12):
            record(tmp_path / "words" / name / f"{take}.wav", word(place, take))
    (training,) = re.findall(r"^(python train\.py(?:.*\\\n)*.*)\n", PAGE, re.MULTILINE)
    root = Path(__file__).resolve().parents[3]
    training = training.replace("train.py", str(root / "train.py")).replace("FOLDER", "words")
    typed(f"{training} trainer.max_epochs=3 trainer=cpu task.linear_baseline=false", tmp_path)
    follow(tmp_path)
