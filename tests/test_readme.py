"""README.md is short, and what it shows is what happens: each snippet runs, each command line composes."""

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from unrolled import build
from unrolled.training import compose

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALL = ["model.hidden_size=64", "data.random_windows.count=8", "task.sample_length=20"]  # seconds instead of minutes
TRAINING_LIBRARIES = ("lightning", "hydra", "omegaconf", "datasets", "torchmetrics")

Process = Callable[..., subprocess.CompletedProcess[str]]


def blocks(language: str) -> list[str]:
    return [code for found, code in FENCE.findall(README) if found == language]


def command_lines() -> Iterator[list[str]]:
    """The words of each command, in fences and between backticks; `a && b` is two commands."""
    fenced = [line for code in blocks("") for line in code.splitlines()]
    inline = re.findall(r"`((?:pip|python|pytest) [^`]+)`", FENCE.sub("", README))
    for line in [*fenced, *inline]:
        for command in line.split("&&"):
            yield shlex.split(command, comments=True)


COMMANDS = list(command_lines())
PYTHON = sorted({shlex.join(words[1:]) for words in COMMANDS if words[0] == "python"})
TRAINING = [each for each in PYTHON if each != "docs/build.py" and " -m " not in f" {each}"]  # but sweeps, serve
CELLS = re.findall(r"^\| `(\w+)` \|.*\| ([\w' ]+) \| ([\d.]+) \|$", README, re.MULTILINE)


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 132


def test_every_block_is_of_a_kind_that_a_test_runs() -> None:
    assert {language for language, _ in FENCE.findall(README)} == {"", "python"}
    assert len(blocks("python")) == 3
    assert {words[0] for words in COMMANDS} == {"pip", "python", "pytest", "sbatch"}
    assert len(TRAINING) >= 5
    assert "docs/build.py" in PYTHON
    assert "python docs/build.py" in (ROOT / ".ci" / "run").read_text()


def test_the_commands_that_install_and_test_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tested = [line.split() for line in (ROOT / ".ci" / "run").read_text().replace("--quiet ", "").splitlines()]
    installs = [words for words in COMMANDS if words[0] == "pip"]

    for _, install, editable, what in installs:
        extras = what.removeprefix(".[").removesuffix("]").split(",")
        assert (install, editable) == ("install", "-e")
        assert set(extras) <= set(project["optional-dependencies"])
    assert ["pip", "install", "-e", ".[train]"] in installs
    assert ["pip", "install", "-e", ".[dev]"] in installs
    assert ["pip", "install", "-e", "'.[dev]'"] in tested
    assert [words for words in COMMANDS if words[0] == "pytest"] == [["pytest", "-n", "auto"]]
    assert ["pytest", "-n", "auto"] in tested


@pytest.mark.parametrize("command", TRAINING)
def test_every_training_command_composes(command: str, python: Process) -> None:
    script, *overrides = shlex.split(command)
    assert script == "train.py"

    composed = python(str(ROOT / script), *overrides, "--cfg", "job")

    assert composed.returncode == 0, composed.stderr
    assert "_target_: unrolled.Recurrent" in composed.stdout


TUNED = """
losses = []
for one in (load_bundle("runs/book").network, network):
    with torch.no_grad():
        losses.append(cross_entropy(one(text[:, :-1]).parameters, text[:, 1:]).mean.item())
attached = any(leaf.requires_grad for leaf in leaves(state))
told = dict(losses=losses, written=list(written.values.shape), attached=attached)
"""
CELL = """
backends = [choice.backend for choice in network.backend_choices(torch.randn(3, 20, 16))]
told = dict(outputs=list(outputs.shape), padding=outputs[1, 7:].abs().max().item(), backends=backends)
"""


def test_the_snippets_run_one_after_another(folder: Path, python: Process) -> None:
    (folder / "book.txt").write_text("".join(f"{n} little birds sat in row {n * 7 % 13}\n" for n in range(700)))
    (folder / "more.txt").write_text("birds sat in a row and then they sat in rows again\n" * 50)

    def run(code: str, then: str) -> dict[str, Any]:
        """What `then` told after the code, and which libraries that only training may need had been imported."""
        told = f"import json, sys\ntold['loaded'] = [name for name in {TRAINING_LIBRARIES} if name in sys.modules]"
        (folder / "block.py").write_text(
            f"{code}\nfrom unrolled.state import leaves\n{then}\n{told}\nprint(json.dumps(told))"
        )
        done = python("block.py")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    training, cell, tuning = blocks("python")
    small = training.replace('compose("', f'compose(*{SMALL}, "')
    assert small != training
    assert "# outputs: (3, 20, 128)" in cell
    trained = run(small, "told = dict(metrics)")
    tuned = run(tuning, TUNED)
    ran = run(cell, CELL)

    assert (folder / "runs" / "book" / "checkpoints" / "best.ckpt").is_file()
    assert trained["test/bits_per_character"] < 4.7  # bits for each of 26 characters
    before, after = tuned.pop("losses")
    assert after < 0.8 * before
    assert tuned == {"written": [3, 200], "attached": False, "loaded": []}
    assert ran == {"outputs": [3, 20, 128], "padding": 0.0, "backends": ["compiled"] * 2, "loaded": []}


def test_the_table_has_every_cell_and_its_measured_cost() -> None:
    measured = (ROOT / "benchmarks" / "README.md").read_text().partition("### Models with options")[2]
    costs = dict(re.findall(r"^\| (\w+), auto \| ([\d.]+), [\d.]+ \|$", measured.partition("\n### ")[0], re.MULTILINE))
    models = {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")} - {"feedforward"}

    assert {name for name, _, _ in CELLS} == models
    assert {name: cost for name, _, cost in CELLS} == costs


@pytest.mark.parametrize(("name", "backend"), [(name, backend) for name, backend, _ in CELLS])
def test_the_table_names_the_backend_that_auto_takes(name: str, backend: str) -> None:
    model = OmegaConf.to_container(compose(f"model={name}").model, resolve=True)

    choices = build(model)(input_size=8).backend_choices(torch.zeros(32, 100, 8))

    assert {choice.backend for choice in choices} == {"fused" if backend == "torch's kernel" else backend}
