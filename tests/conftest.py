"""What every test may ask for; small runs, composed as the command line composes them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from unrolled.training.configuration import config_folder

ROOT = Path(__file__).resolve().parents[1]

SMALL = [
    "data=text",
    "data.files=rhyme.txt",
    "data.batch_size=4",
    "data.window=16",
    "data.shift=false",
    "data.validation_streams=2",
    "data.windowed.length=16",
    "data.windowed.count=8",
    "data.windowed.batch_size=4",
    "model.hidden_size=12",
    "network.embedding_size=6",
    "trainer=cpu",
    "trainer.val_check_interval=1.0",
    "task.sample_length=20",
    "callbacks.progress=null",
    "+trainer.enable_progress_bar=false",
]

Configure = Callable[..., DictConfig]


@pytest.fixture
def small() -> list[str]:
    """Overrides of a run that takes a second."""
    return list(SMALL)


@pytest.fixture
def train_script() -> str:
    return str(ROOT / "train.py")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place with a text in it, where the cache and all runs go."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    lines = [f"{number} little birds sat in row {number * 7 % 13}\n" for number in range(120)]
    (tmp_path / "rhyme.txt").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def configure(folder: Path) -> Configure:
    """Composes a configuration for a small run in a folder of its own."""

    def configured(run: str, *overrides: str, name: str = "train", small: bool = True) -> DictConfig:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            given = [*(SMALL if small else ()), f"run_dir={folder / run}", *overrides]
            return compose(name, given)

    return configured


@pytest.fixture
def python(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script of the project in a process of its own."""

    def run(*arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tasks"), str(folder)])
        settings: dict[str, Any] = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=folder, env=settings, input=stdin, capture_output=True, text=True, timeout=300
        )

    return run


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
