"""Words that a machine speaks, by the real eSpeak NG: what is written, in which voices, and what is refused."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from unrolled.processing.audio.recordings import read_recording
from unrolled.training.run.runner import run
from unrolled_tasks.classification import voices

WORDS = {"6": "six", "8": "eight"}


def recordings(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.wav"))}


def test_each_label_is_said_by_each_voice(tmp_path: Path) -> None:
    assert voices.write_voices(tmp_path / "spoken", WORDS, count=3) == 6
    written = recordings(tmp_path / "spoken")
    assert list(written) == [f"train/{label}/machine_{n:04}.wav" for label in "68" for n in range(3)]
    assert len(set(written.values())) == 6
    for path in (tmp_path / "spoken").rglob("*.wav"):
        recording = read_recording(path, str(path))
        assert 0.1 < len(recording.samples) / recording.rate < 3
        assert recording.samples.abs().max() > 0.01
    assert [path.name for path in tmp_path.iterdir()] == ["spoken"]


def test_a_six_hisses_where_a_one_does_not(tmp_path: Path) -> None:
    """The samples are the word's own: much of a six is louder above 3 kHz than below, as an s is; little of a one."""
    voices.write_voices(tmp_path / "spoken", {"6": "six", "1": "one"}, count=8)

    def hiss(label: str) -> float:
        shares = []
        for path in sorted((tmp_path / "spoken" / "train" / label).iterdir()):
            recording = read_recording(path, str(path))
            spectrum = torch.stft(recording.samples, 512, window=torch.hann_window(512), return_complex=True).abs()
            border = round(3000 / recording.rate * 512)
            shares.append(float((spectrum[border:].sum(0) > spectrum[:border].sum(0)).float().mean()))
        return sum(shares) / len(shares)

    assert hiss("6") > 0.3
    assert hiss("1") < 0.1


def test_the_seed_decides_which_voices(tmp_path: Path) -> None:
    speaker = voices.Speaker()
    first, again, other = (speaker.voices(200, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len({voice.throat for voice in first[: len(speaker.throats)]}) == len(speaker.throats)
    assert len({voice.accent for voice in first}) == len(speaker.accents) > 5
    fast, slow = (len(speaker.synthesize("six", first[0]._replace(tempo=tempo))) for tempo in (200, 110))
    assert fast < slow


def test_a_voice_decides_how_loud_its_s_is() -> None:
    speaker = voices.Speaker()
    plain = voices.Voice("en-US", "max", tempo=150, pitch=50)

    def levels(consonants: int) -> tuple[float, float]:
        """Root mean squares of the first tenth of a six, which is its s, and of what is loudest, its vowel."""
        said = torch.frombuffer(
            speaker.synthesize("six", plain._replace(consonants=consonants)), dtype=torch.int16
        ).float()
        frames = said[: len(said) // 100 * 100].view(-1, 100).square().mean(1).sqrt()
        return float(frames[: len(frames) // 10].square().mean().sqrt()), float(frames.max())

    (hiss, vowel), (soft_hiss, same_vowel) = levels(100), levels(10)
    assert 7 < hiss / soft_hiss < 15
    assert abs(vowel / same_vowel - 1) < 0.2
    assert len({voice.consonants for voice in speaker.voices(200, seed=1)}) > 50


def test_what_cannot_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="already exists"):
        voices.write_voices(tmp_path / "there", WORDS)
    with pytest.raises(ValueError, match=r"language='klingon'.*en-GB-scotland"):
        voices.write_voices(tmp_path / "new", WORDS, language="klingon")
    with pytest.raises(ValueError, match="nothing to speak"):
        voices.write_voices(tmp_path / "new", {"6": "six", "none": " "}, count=1)
    with pytest.raises(ValueError, match="at least one word and one voice"):
        voices.write_voices(tmp_path / "new", WORDS, count=0)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ValueError, match=r"pip install 'unrolled\[voices\]'"):
        voices.write_voices(tmp_path / "new", WORDS)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert voices.main([str(tmp_path / "spoken"), "0=zero", "seven", "--voices", "2", "--seed", "3"]) == 0
    assert "4 recordings" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "spoken" / "train").iterdir()) == ["0", "seven"]
    assert voices.main([str(tmp_path / "spoken"), "zero"]) == 2
    assert "already exists" in capsys.readouterr().err


def test_a_network_learns_from_machines_and_hears_others(folder: Path, configure: Callable[..., DictConfig]) -> None:
    voices.write_voices(folder / "machines", {"no": "no", "yes": "yes"}, count=24)
    voices.write_voices(folder / "others", {"no": "no", "yes": "yes"}, count=12, seed=2)
    config = configure(
        "run",
        "task=classification",
        "data=speech",
        "data.files=[machines]",
        "data.test_files=others",
        "data.split_fractions=[1,0,0]",
        "data.modality.rate=8000",
        "data.modality.augmentation=null",
        "model=gru",
        "model.num_layers=1",
        "encoder.frame.hidden_size=16",
        "optimizer.lr=1e-2",
        "trainer=cpu",
        "trainer.max_epochs=12",
        "callbacks.progress=null",
        "callbacks.curves=null",
        "+trainer.enable_progress_bar=false",
        small=False,
    )
    assert run(config)["test/accuracy"] > 0.85
