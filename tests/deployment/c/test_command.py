"""`python -m unrolled export CHECKPOINT --to c`: what it writes and prints, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled import Bundle, build, build_processor
from unrolled.checkpoint import save_tensors
from unrolled.deployment import export_c
from unrolled.deployment.command import main


def description(*, bidirectional: bool) -> dict[str, Any]:
    core = {"_target_": "unrolled.Recurrent", "_partial_": True, "hidden_size": 8}
    core["cell"] = {"_target_": "unrolled.LSTMCell", "_partial_": True}
    encoder = {"_target_": "unrolled.FeatureEncoder", "input_size": 20, "core": core, "bidirectional": bidirectional}
    head = {"_target_": "unrolled.CategoricalHead", "_partial_": True, "num_classes": 2}
    pooling = {"_target_": "unrolled.MaxPooling", "_partial_": True}
    network = {"_target_": "unrolled.SequenceClassifier", "encoder": encoder, "head": head, "pooling": pooling}
    source = {"_target_": "unrolled.AudioFeatures", "rate": 8000, "num_mels": 20, "normalization": "none"}
    target = {"_target_": "unrolled.LabelEncoder", "labels": ["yes", "no"]}
    return {"format": 2, "network": network, "processor": {"source": source, "target": target}, "info": {}}


def checkpoint(folder: Path, *, bidirectional: bool = False) -> tuple[Path, Bundle]:
    torch.manual_seed(0)
    described = description(bidirectional=bidirectional)
    bundle = Bundle(build(described["network"]).eval(), build_processor(described["processor"]), {})
    weights = {f"network.{name}": value for name, value in bundle.network.state_dict().items()}
    path = folder / "best.ckpt"
    save_tensors({"unrolled": described, "state_dict": weights}, path)
    return path, bundle


def test_the_command_writes_both_files_and_prints_their_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, bundle = checkpoint(tmp_path)
    assert main(["export", str(path), "--to", "c", "--output", str(tmp_path / "out"), "--name", "words"]) == 0
    printed = capsys.readouterr().out
    expected = export_c(bundle, name="words")
    for name, content in expected.files.items():
        assert (tmp_path / "out" / name).read_bytes() == content
        assert f"{name}\t{len(content):,} bytes" in printed
    assert expected.notes[0] in printed
    assert main(["export", str(path), "--to", "c", "--output", str(tmp_path / "small"), "--int8"]) == 0
    assert "8-bit weights change outputs by" in capsys.readouterr().out


def test_a_network_that_is_refused_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = checkpoint(tmp_path, bidirectional=True)
    assert main(["export", str(path), "--to", "c", "--output", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "bidirectional=false" in message
    assert len(message.splitlines()) <= 3
    assert not (tmp_path / "out").exists()
