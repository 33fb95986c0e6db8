"""What every test may ask for; small runs, composed as the command line composes them."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from unrolled import (
    Cell,
    ClockworkCell,
    ElmanCell,
    FullGateLSTMCell,
    GatedFeedbackCell,
    GRUCell,
    IndRNNCell,
    JordanCell,
    LayerNormLSTMCell,
    LSTMCell,
    MogrifierLSTMCell,
    MultiplicativeLSTMCell,
    PeepholeLSTMCell,
    ProjectedLSTMCell,
    ResetFirstGRUCell,
)
from unrolled.backends import BACKENDS
from unrolled.backends.compiled.build import cache_folder
from unrolled.training.configuration.overrides import config_folder, forced

os.environ.setdefault("UNROLLED_AUTO", "fixed")  # a choice by speed would differ from one test to the next
torch.set_num_threads(1)  # as many workers as cores may run beside one another; and sums come out the same everywhere

ROOT = Path(__file__).resolve().parents[1]
KERNELS = cache_folder()  # before tests set another cache

SMALL = [
    "data=text",
    "data.files=rhyme.txt",
    "data.batch_size=4",
    "data.window=16",
    "data.shift=false",
    "data.validation_streams=2",
    "data.random_windows.length=16",
    "data.random_windows.count=8",
    "data.random_windows.batch_size=4",
    "model.hidden_size=12",
    "network.embedding.size=6",
    "trainer=cpu",
    "trainer.val_check_interval=1.0",
    "task.sample_length=20",
    "callbacks.progress=null",
    "+trainer.enable_progress_bar=false",
]

MakeCell = Callable[..., Cell[Any]]

# What the laws that all cells keep are tested on. A cell whose activation has a kink says so by its name.
EVERY_CELL: dict[str, MakeCell] = {
    "lstm": LSTMCell,
    "lstm_zoneout": lambda *sizes: LSTMCell(*sizes, zoneout=0.2, zoneout_c=0.4).eval(),
    "gru": GRUCell,
    "gru_zoneout": lambda *sizes: GRUCell(*sizes, zoneout=0.2).eval(),
    "reset_first_gru": ResetFirstGRUCell,
    "elman": ElmanCell,
    "elman_relu": partial(ElmanCell, activation="relu"),
    "elman_logistic": partial(ElmanCell, activation="sigmoid"),
    "peephole_lstm": PeepholeLSTMCell,
    "coupled_lstm": partial(PeepholeLSTMCell, coupled=True, input_activation="softsign"),
    "lstm_without_input_gate": partial(PeepholeLSTMCell, missing_gate="input"),
    "lstm_without_forget_gate": partial(PeepholeLSTMCell, missing_gate="forget"),
    "lstm_without_output_gate": partial(PeepholeLSTMCell, missing_gate="output"),
    "lstm_without_activations": partial(
        PeepholeLSTMCell, input_activation="identity", output_activation="identity", peepholes=False
    ),
    "full_gate_lstm": FullGateLSTMCell,
    "layer_norm_lstm": LayerNormLSTMCell,
    "projected_lstm": partial(ProjectedLSTMCell, projection_size=3),
    "indrnn": partial(IndRNNCell, activation="tanh"),
    "indrnn_relu": IndRNNCell,
    "jordan": partial(JordanCell, output_units=4, memory=0.5),
    "clockwork": partial(ClockworkCell, periods=(1, 2, 3)),
    "multiplicative_lstm": MultiplicativeLSTMCell,
    "mogrifier_lstm": MogrifierLSTMCell,
    "gated_feedback_lstm": partial(GatedFeedbackCell, feedback_layers=2),
    "gated_feedback_gru": partial(GatedFeedbackCell, feedback_layers=2, unit="gru"),
    "gated_feedback_tanh": partial(GatedFeedbackCell, feedback_layers=2, unit="tanh"),
}

Configure = Callable[..., DictConfig]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`make_cell` is every cell; `running` is every cell with every backend that runs it."""
    if "make_cell" in metafunc.fixturenames:
        metafunc.parametrize("make_cell", EVERY_CELL.values(), ids=list(EVERY_CELL))
    if "running" in metafunc.fixturenames:
        inputs = torch.zeros(2, 3, 3, dtype=torch.float64)
        pairs = [
            (make, backend)
            for make in EVERY_CELL.items()
            for backend in BACKENDS
            if BACKENDS[backend].refuses(make[1](3, 5).double(), inputs) is None
        ]
        ids = [f"{name}-{backend}" for (name, _), backend in pairs]
        metafunc.parametrize("running", [(make, backend) for (_, make), backend in pairs], ids=ids)


@pytest.fixture(autouse=True)
def _logging() -> Generator[None]:
    """Takes back what Hydra configures when a test runs a command in this process: files in a folder that goes."""
    root = logging.getLogger()
    level, before = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in set(root.handlers).difference(before):
        if type(handler) in (logging.StreamHandler, logging.FileHandler):  # pytest's own are of derived classes
            root.removeHandler(handler)
            handler.close()


@pytest.fixture
def every_cell() -> dict[str, MakeCell]:
    """All cells at once, where one call for all of them is cheaper than a test for each."""
    return EVERY_CELL


@pytest.fixture
def small() -> list[str]:
    """Overrides of a run that takes a second."""
    return list(SMALL)


@pytest.fixture
def train_script() -> str:
    return str(ROOT / "train.py")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place with a text in it, where the cache and all runs go. Compiled kernels are those of all tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    KERNELS.mkdir(parents=True, exist_ok=True, mode=0o700)
    (tmp_path / "cache" / "compiled").symlink_to(KERNELS)
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
            return compose(name, list(map(forced, given)))

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
