"""What the pages show is what happens: their snippets run, their commands exist."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unrolled.deployment.command import _parsed
from unrolled.training.configuration.overrides import check_overrides

ROOT = Path(__file__).resolve().parents[3]
BUILT = {"_build", "tasks", "benchmarks.md"}  # what docs/build.py writes from pages that are listed here by themselves
SITE = [page for page in ROOT.glob("docs/**/*.md") if page.relative_to(ROOT / "docs").parts[0] not in BUILT]
PAGES = sorted([ROOT / "README.md", *SITE, *ROOT.glob("tasks/**/README.md")])
CELLS = ROOT / "docs" / "cells.md"
LINKING = [*PAGES, ROOT / "benchmarks" / "README.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

Process = Callable[..., subprocess.CompletedProcess[str]]


def blocks(page: Path, *languages: str) -> list[str]:
    return [code for language, code in BLOCK.findall(page.read_text()) if language in languages]


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """(script, overrides) of each `python train.py …`, `python evaluate.py …` and `sbatch SCRIPT …` on a page."""
    for block in blocks(page, "", "bash", "console", "text"):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"\bpython (train|evaluate)\.py(.*)", line)
            sent = re.search(r"\bsbatch .*?(examples/slurm/\w+\.sbatch)(.*)", line)
            if sent:
                assert (ROOT / sent[1]).is_file(), sent[1]
                yield "train", shlex.split(sent[2], comments=True)
            if found and "hiden" not in line:  # the misspelt key whose answer is shown
                words = shlex.split(found[2], comments=True)
                yield found[1], [word for word in words if word == "-m" or ("=" in word and not word.startswith("-"))]


COMMANDS = [(page, script, given) for page in PAGES for script, given in commands(page)]


def test_there_are_pages_and_commands_to_look_at() -> None:
    assert len(PAGES) >= 3
    assert len(COMMANDS) > 40


@pytest.mark.parametrize(
    ("script", "given"),
    [(script, given) for _, script, given in COMMANDS],
    ids=[f"{page.parent.name}-{' '.join(given)}" for page, _, given in COMMANDS],
)
def test_every_command_on_a_page_exists(script: str, given: list[str]) -> None:
    foreign = [word for word in given if "mylab" in word or "=leaky" in word or "=minimal" in word]
    typed = [word.replace("…", "") for word in given if word != "-m" and word not in foreign]
    check_overrides(script, typed, sweep="-m" in given)


def predictions(page: Path) -> Iterator[list[str]]:
    """What follows `python -m unrolled` in each command of a page that predicts; redirections are the shell's."""
    for block in blocks(page, "", "bash", "console", "text"):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"\bpython -m unrolled (?!train|evaluate)(.*)", line)
            if found:
                words = shlex.split(found[1], comments=True)
                ends = [number for number, word in enumerate(words) if word in ("<", ">", "|")]
                yield words[: min(ends, default=None)]


PREDICTIONS = [(page, given) for page in LINKING for given in predictions(page)]


@pytest.mark.parametrize(
    "given", [given for _, given in PREDICTIONS], ids=[f"{p.parent.name}-{' '.join(given)}" for p, given in PREDICTIONS]
)
def test_every_prediction_command_on_a_page_is_understood(given: list[str]) -> None:
    """The command's own parser ends the process where it doesn't know an option."""
    assert _parsed(given).command == given[0]


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKING, ids=[str(page.relative_to(ROOT)) for page in LINKING])
def test_every_link_and_picture_of_a_page_exists(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<img src=\"([^\"]+)\"", text)

    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
        assert target.suffix not in (".png", ".svg") or target.stat().st_size < 100_000, link


def test_the_snippets_about_reset_marks_run(folder: Path, python: Process) -> None:
    """Their assertions compare packed sequences with separate ones, and a rollout with the steps that collected it."""
    code = "\n".join(blocks(ROOT / "docs" / "resets.md", "python"))
    (folder / "page.py").write_text(code)
    done = python("page.py")

    assert code.count("assert ") == 2
    assert done.returncode == 0, done.stderr


def test_the_snippets_about_inspection_run(folder: Path, python: Process) -> None:
    code = "\n".join(blocks(ROOT / "docs" / "inspection.md", "python"))
    (folder / "page.py").write_text(code)
    done = python("page.py")

    assert code.count("assert ") == 3
    assert done.returncode == 0, done.stderr


def test_the_snippets_about_notebooks_run(folder: Path, python: Process) -> None:
    code = "\n".join(blocks(ROOT / "docs" / "how-to" / "notebook.md", "python"))
    (folder / "page.py").write_text(code)
    before = {path.name for path in folder.iterdir()} | {"cache"}  # of compiled kernels
    done = python("page.py")

    assert code.count("assert ") == 2
    assert done.returncode == 0, done.stderr
    for name in ("Classifier", "Forecaster", "Tagger", "LanguageModel"):
        assert f"Recurrent{name}: weights of epoch" in done.stdout
    assert {path.name for path in folder.iterdir()} - before == {"slopes.ckpt"}


PAIRS = ["task=translation", "data=pairs", "data.files=pairs.jsonl", "data.unit=character", "data.batch_tokens=120"]
PAIRS += ["trainer=cpu", "callbacks.alignments=null", "callbacks.progress=null", "+trainer.enable_progress_bar=false"]


def test_the_cell_of_a_page_joins_every_task(folder: Path, python: Process, small: list[str]) -> None:
    shown = [code for code in blocks(CELLS, "python", "yaml") if code.startswith("# mylab/")]
    for code in shown:
        path = folder / code.partition("\n")[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    (asked,) = [given for page, _, given in COMMANDS if page == CELLS and "model=leaky" in given]

    assert len(shown) == 2
    pairs = [{"en": f"{number} birds", "de": f"{number} Vögel"} for number in range(60)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    digits = ["task=classification", "encoder.frame.hidden_size=null", "model.hidden_size=12", "trainer=cpu"]
    tasks = {"run": small, "translation": [*PAIRS, "model.hidden_size=12"], "digits": digits}
    for name, task in tasks.items():
        steps = ["trainer.max_epochs=1", "trainer.max_steps=2", "test=false", f"hydra.run.dir={name}"]
        done = python(str(ROOT / "train.py"), "--config-dir", "mylab/conf", *task, *asked, *steps)
        assert done.returncode == 0, done.stderr
        # A decoder whose input is fed back runs step by step.
        assert name == "translation" or "runs all steps of LeakyCell" in done.stdout
    checkpoint = str(folder / "run" / "checkpoints" / "last.ckpt")
    written = python("-m", "unrolled", "sample", checkpoint, "--trust", "mylab", "--length", "5")
    assert written.returncode == 0, written.stderr
