"""What a run prints as next runs as it is printed; an evaluation needs not be told what the checkpoint says."""

import json
import math
import os
import random
import re
import shlex
import struct
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from unrolled.training import compose
from unrolled.training.configuration.quoting import quote_value
from unrolled.training.run.next_commands import changed_options
from unrolled.training.run.runner import run

ROOT = Path(__file__).resolve().parents[3]
Process = Callable[..., subprocess.CompletedProcess[str]]

FOLDER = "out/a run's"
QUICK = ["trainer=cpu", "trainer.max_steps=2", "callbacks.progress=null", "+trainer.enable_progress_bar=false"]
QUICK += ["callbacks.samples=null", "callbacks.curves=null", f"run_dir={quote_value(FOLDER)}"]

WINDOWS = "data.random_windows={length:16,count:8,batch_size:4}"
TASKS = {
    "char_lm": [
        "data=text",
        "data.files=rhyme.txt",
        "data.batch_size=4",
        "data.window=16",
        "model.hidden_size=8",
        WINDOWS,
    ],
    "translation": [
        "task=translation",
        "data=pairs",
        "data.files=pairs.jsonl",
        "data.source=fr",
        "data.target=en",
        "data.unit=character",
        "model.hidden_size=8",
        "task.search.num_beams=2",
        "callbacks.alignments=null",
    ],
    "captioning": [
        "task=captioning",
        "data.glyphs=1",
        "trunk.module.widths=[8,8]",
        "trunk.module.strides=[4,4]",
        "model.hidden_size=8",
        "task.search.max_extra=3",
        "task.gallery=2",
        "callbacks.alignments=null",
    ],
    "digits": ["task=classification", "model.hidden_size=8", "encoder.frame.hidden_size=null"],
    "regression": [
        "task=regression",
        "model.hidden_size=8",
        "encoder.frame.hidden_size=null",
        "data.split_fractions=[0.8,0.2,0]",
    ],
    "sentences": ["task=classification", "data=sentences", "data.files=labelled.jsonl", "model.hidden_size=8"],
    "speech": ["task=classification", "data=speech", "data.files=tones", "model.hidden_size=8"],
    "series": ["task=classification", "data=series", "data.files=series.csv", "data.modality.series=which"],
}

SLOW = ("digits", "regression", "series")  # the other kinds of data of the same task print the same commands


@pytest.fixture
def material(folder: Path) -> Path:
    """A small set of each kind of data."""
    pairs = [{"fr": f"l'oiseau {n}", "en": f"bird {n}"} for n in range(60)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    words = [{"text": f"-{'good' if n % 2 else 'bad'} birds \\ {n}", "label": n % 2} for n in range(60)]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in words))
    for label, hertz in (("low", 300), ("high", 900)):
        for number in range(10):
            samples = (int(9000 * math.sin(2 * math.pi * (hertz + number) * n / 8000)) for n in range(800))
            path = folder / "tones" / label / f"it's {number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, 8000, 800, "NONE", "not compressed"))
                file.writeframes(struct.pack("<800h", *samples))
    rows = [f"{n},{random.Random(n * 9 + t).random()},{n % 2}" for n in range(40) for t in range(3)]
    (folder / "series.csv").write_text("\n".join(["which,x,label", *rows]) + "\n")
    return folder


def printed(output: str) -> list[str]:
    """The commands and sentences under "next"."""
    _, found, rest = output.partition("\nnext ")
    assert found, output
    return [line.strip() for line in rest.splitlines() if line.strip()]


def in_a_shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tasks")])
    found = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    settings = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PATH": found}
    shell = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(shell, cwd=folder, env=settings, capture_output=True, text=True, timeout=300)


def run_each(lines: list[str], folder: Path) -> dict[str, str]:
    """What each printed command prints; all succeed, and every placeholder is in a sentence."""
    said: dict[str, str] = {}
    for line in lines:
        if line.startswith("#") or "tensorboard" in line:  # which serves for ever
            continue
        assert not re.search(r"\b(FILE|IMAGE|PATH|…)", line), line
        done = in_a_shell(line, folder)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        said[line] = done.stdout
    return said


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in TASKS])
def test_every_printed_line_runs_as_it_is_printed(name: str, material: Path, capsys: Any) -> None:
    if name == "speech":
        pytest.importorskip("soundfile")
    numbers = run(compose(*TASKS[name], *QUICK))
    lines = printed(capsys.readouterr().out)

    said = run_each(lines, material)

    use = {"char_lm": "sample", "translation": "translate", "captioning": "caption"}
    verb = use.get(name, "classify")
    assert name == "series" or any(f"unrolled {verb}" in line for line in lines)
    (evaluation,) = [line for line in lines if line.startswith("python -m unrolled evaluate")]
    for key, value in numbers.items():
        assert float(re.search(rf"^{key} +(\S+)$", said[evaluation], re.MULTILINE)[1]) == pytest.approx(value, abs=2e-4)  # pyright: ignore
    (sentence,) = [line for line in lines if "your own data: " in line]
    assert "FILE" in sentence
    asked = sentence.partition("your own data: ")[2]
    files = {"translation": "pairs.jsonl", "sentences": "labelled.jsonl", "speech": "tones", "series": "series.csv"}
    if name in ("char_lm", *files):
        asked += " data.modality.series=which" if name == "series" else ""
        assert in_a_shell(asked.replace("FILE", files.get(name, "rhyme.txt")), material).returncode == 0


def test_the_logs_are_found_by_the_line_that_shows_them(folder: Path, capsys: Any) -> None:
    run(compose(*TASKS["char_lm"], *QUICK, "trainer.log_every_n_steps=1", "test=false"))

    (line,) = [line for line in printed(capsys.readouterr().out) if "tensorboard" in line]
    done = in_a_shell(f"{line} --inspect", folder)

    assert done.returncode == 0, done.stderr
    assert "learning_rate" in done.stdout


LEAKY = """
import torch
from unrolled import ElmanCell, HiddenState


class LeakyCell(ElmanCell):
    def step(self, projected, state, noise=None):
        output, new = super().step(projected, state, noise)
        return output, HiddenState(0.5 * state.h + 0.5 * new.h)
"""


def test_so_do_those_of_a_run_with_a_cell_of_ones_own(folder: Path) -> None:
    (folder / "mylab" / "conf" / "model").mkdir(parents=True)
    (folder / "mylab" / "__init__.py").write_text("")
    (folder / "mylab" / "cells.py").write_text(LEAKY)
    leaky = "defaults: [elman, _self_]\ncell: {_target_: mylab.cells.LeakyCell}\nhidden_size: 8\n"
    (folder / "mylab/conf/model/leaky.yaml").write_text(leaky)
    options = shlex.join(["model=leaky", *TASKS["char_lm"], *QUICK[:-1]])

    trained = in_a_shell(f"python -m unrolled train --config-dir mylab/conf {options}", folder)

    assert trained.returncode == 0, trained.stderr
    lines = printed(trained.stdout)
    assert any("--trust mylab" in line for line in lines)
    run_each(lines, folder)


def test_a_wrong_option_is_answered_under_the_name_that_was_typed(folder: Path) -> None:
    done = in_a_shell("python -m unrolled train model.hiden_size=8", folder)

    assert done.returncode == 2
    assert done.stderr.startswith("unrolled train: model.hiden_size=8: model has no 'hiden_size'")
    assert done.stderr.count("\n") < 5


def test_a_task_that_is_not_found_is_the_checkpoints(folder: Path) -> None:
    config = compose(*TASKS["char_lm"], *QUICK, "test=false")
    config.choices.task = "mine"
    run(config)

    done = in_a_shell(f"python -m unrolled evaluate {shlex.quote(f'checkpoint={quote_value(FOLDER)}')}", folder)

    assert done.returncode == 2
    assert "there is no such task" in done.stderr
    assert "--config-dir" in done.stderr


@pytest.mark.distributed
def test_two_processes_start_from_the_package_alone(folder: Path) -> None:
    options = shlex.join([*TASKS["char_lm"], *QUICK[1:-1], "data.batch_size=2", "test=false"])
    ddp = "trainer=ddp trainer.accelerator=cpu trainer.devices=2 hydra.run.dir=two"

    done = in_a_shell(f"python -m unrolled train {options} {ddp}", folder)

    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "two" / "summary.json").read_text())["processes"] == 2


def test_a_run_folder_stands_for_its_best_checkpoint(folder: Path, python: Process) -> None:
    run(compose(*TASKS["char_lm"], *QUICK, "test=false"))
    (folder / "empty").mkdir()

    one, other, none, near = (
        python("-m", "unrolled", "sample", str(folder / path), "--seed", "1", "--length", "20")
        for path in ("out/a run's", "out/a run's/checkpoints/last.ckpt", "empty", "out")
    )

    assert one.returncode == other.returncode == 0, one.stderr
    assert one.stdout == other.stdout
    assert none.returncode == near.returncode == 2
    assert "empty is a folder without best.ckpt or last.ckpt\n" in none.stderr


EXPERIMENTS = sorted(
    str(p.relative_to(ROOT / "conf/experiment").with_suffix("")) for p in ROOT.glob("conf/experiment/*/*")
)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_evaluation_reads_and_scores_as_the_experiment_did(experiment: str) -> None:
    own = (
        "captioning",
        "char_lm/tiny",
        "classification/spoken",
        "classification/sst2",
        "classification/unseen",
        "music/",
        "forecasting/",
        "tagging/",
    )
    needed = ["data.files=FILE"] if experiment.startswith(own) else []
    needed += ["data.held_out=[someone]"] if "unseen" in experiment else []
    ours = compose(f"experiment={experiment}", *needed)

    options = changed_options(ours)
    assert options is not None
    choices = [f"{group}={choice}" for group, choice in ours.choices.items()]
    theirs = compose("checkpoint=PATH", *choices, *options, command="evaluate")

    for group in ("data", "task"):
        assert OmegaConf.to_container(theirs[group]) == OmegaConf.to_container(ours[group])


plain = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(st.characters(codec="utf-8"))
KEYS = st.from_regex(r"[a-z][a-z_]{0,5}", fullmatch=True)


TRICKY = [
    "${seed}",
    "\\\\${seed}",
    "a\\\\",
    "it's",
    "null",
    "-inf",
    "+nan",
    "1e5",
    "1_000",
    "-.5e3",
    "True",
    "a,b",
    "{a:1}",
    "",
    " ",
    "1:2",
    "~",
    "-",
]


@pytest.mark.parametrize("value", [*TRICKY, math.inf, -math.inf, 1e-30])
def test_a_value_that_looks_like_another_comes_back(value: Any) -> None:
    override = OverridesParser.create().parse_override(f"key={quote_value(value)}")

    assert OmegaConf.to_container(OmegaConf.create({"key": override.value()}), resolve=True) == {"key": value}


@settings(deadline=None)
@given(value=st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)))
def test_a_value_comes_back_as_it_was_written(value: Any) -> None:
    override = OverridesParser.create().parse_override(f"key={quote_value(value)}")

    assert OmegaConf.to_container(OmegaConf.create({"key": override.value()}), resolve=True) == {"key": value}
