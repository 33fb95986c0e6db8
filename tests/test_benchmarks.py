"""Benchmarks still run: a few steps of each that needs neither files nor other packages."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SHORT = {
    "auto": "--seconds 0.01",
    "backends": "--models gru --backends loop --steps 13 --rounds 1",
    "classification": "--steps 13 --rounds 1 data=digits",
    "classification_baselines": "data=digits",
    "cells": "--models lstm --seeds 1 --updates 20 task=classification data=digits",
    "export": "--cells LSTMCell --rounds 1 --seconds 0.001",
    "gpu": "--device cpu --match LSTM,",
    "memory": "--characters 20000 --steps 3",
    "ragged": "--repeats 1 --sizes 1",
    "recurrent": "--repeats 1 --sizes 0 --cells LSTMCell",
    "resets": "--repeats 1",
    "scaling": "paper",
    "startup": "--rounds 1",
    "step_latency": "--seconds 0.01 --batches 1 20",
    "throughput": "--steps 13 --rounds 1",
    "translation": "--rounds 1 --steps 1 --sentences 8 --num-beams 2 --sizes 100 16 16 16",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_benchmark_runs(name: str, folder: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *SHORT[name].split()]

    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    assert any(character.isdigit() for character in done.stdout.splitlines()[-1])


def test_every_benchmark_is_among_them_or_needs_something() -> None:
    needs = {
        "forecasting_peers": "Darts",
        "captioning": "efficientnet",
        "listening": "recordings",
        "plain_char_lm": "a text",
        "series_classification": "aeon",
        "pronunciation_peers": "Yoyodyne",
        "translation_peers": "JoeyNMT",
    }
    assert {path.stem for path in BENCHMARKS.glob("*.py")} == SHORT.keys() | needs.keys()
