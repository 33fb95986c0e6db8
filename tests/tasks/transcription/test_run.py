"""Transcription from the command line to transcripts: learned, scored, resumed, shared between processes, used."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from unrolled import load_bundle
from unrolled.deployment.transcription import search
from unrolled.generation import ctc_beam_search
from unrolled.training.run.assembly import assemble, build_task
from unrolled.training.run.runner import run, score
from unrolled_tasks.transcription.task import Transcribed, Transcription

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]
Check = Callable[..., None]
Summaries = Callable[..., tuple[dict[str, Any], dict[str, Any]]]
QUIET = [
    "task=transcription",
    "trainer=cpu",
    "callbacks.progress=null",
    "callbacks.curves=null",
    "+trainer.enable_progress_bar=false",
]
TINY = [
    *QUIET,
    "data=lines",
    "data.files=lines",
    "data.batch_size=8",
    "network.encoder.hidden_size=12",
    "network.encoder.filters=8",
    "data.modality.columns.height=5",
    "data.modality.columns.width=2",
]
STILL = ["network.output_dropout=0", "network.encoder.input_dropout=0", "data.modality.augmentation=null"]
LETTERS = {letter: torch.rand(5, 4, generator=torch.Generator().manual_seed(ord(letter))) < 0.5 for letter in "abc "}


def drawn(text: str) -> Tensor:
    """Letters of 5 × 4 pixels with two columns between them."""
    gap = torch.zeros(5, 2, dtype=torch.bool)
    return torch.cat([gap, *(torch.cat([LETTERS[letter], gap], 1) for letter in text)], 1)


@pytest.fixture
def lines(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    (folder / "lines").mkdir()
    for number in range(120):
        text = "".join(generator.choice(list("abc"), size=generator.integers(2, 6)))
        text = f"{text[:2]} {text[2:]}" if len(text) > 3 else text
        Image.fromarray(np.where(drawn(text).numpy(), 0, 255).astype(np.uint8)).save(folder / "lines" / f"{number}.png")
        (folder / "lines" / f"{number}.gt.txt").write_text(text)
    return folder


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_it_learns_letters_without_an_alignment(lines: Path, configure: Configure) -> None:
    run(configure("run", *TINY, *STILL, "trainer.max_epochs=25", "optimizer.lr=2e-2", small=False))

    found = summary(lines / "run")
    assert found["test/cer"] < 0.05
    assert found["test/wer"] < 0.2
    for name in Transcription.files:
        assert (lines / "run" / name).stat().st_size > 10
    assert (lines / "run" / "pictures" / "alignments.png").stat().st_size > 1000
    rows = list(csv.reader((lines / "run" / "transcripts.csv").open()))
    assert rows[0] == ["source", "text", "predicted"]
    assert len(rows) == 13


def test_it_overfits_a_handful_of_drawn_lines(folder: Path, configure: Configure) -> None:
    sizes = ["data.drawn.train_size=5", "data.drawn.validation_size=1", "data.drawn.test_size=1", "data.batch_size=5"]
    small = ["data.drawn.max_length=6", "data.drawn.size=12", "data.modality.columns.height=16"]
    task, batch = task_and_batch(
        configure, *QUIET, *sizes, *small, *STILL, "network.encoder.hidden_size=32", split="train"
    )
    task.train()
    optimizer = torch.optim.Adam(task.network.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        task.loss(batch, "train").mean.backward()
        torch.nn.utils.clip_grad_norm_(task.network.parameters(), 1.0)
        optimizer.step()

    with torch.no_grad():
        parameters = task.eval().network(batch.source, batch.lengths)
    found = search(task.network.head, parameters, batch.lengths)
    assert found == [row[:count] for row, count in zip(batch.targets.tolist(), batch.predictions.tolist(), strict=True)]


def task_and_batch(configure: Configure, *options: str, split: str = "val") -> tuple[Any, Any]:
    config = configure("run", *options, small=False)
    parts = assemble(config)
    parts.data.prepare()
    config.sizes = parts.data.sizes()
    torch.manual_seed(0)
    loader = getattr(parts.data, f"{split}_dataloader")()
    return build_task(config, parts).eval(), next(iter(loader))


def test_padding_affects_neither_losses_nor_transcripts(lines: Path, configure: Configure) -> None:
    task, batch = task_and_batch(configure, *TINY, *STILL)
    frames = torch.cat([batch.source, torch.full_like(batch.source[:, :7], torch.nan)], 1)
    labels = torch.cat([batch.targets, torch.full_like(batch.targets[:, :3], 99)], 1)
    padded = batch._replace(source=frames, targets=labels)

    with torch.no_grad():
        one, other = task.score(batch, "validation"), task.score(padded, "validation")

    torch.testing.assert_close(other.sums["loss"][0], one.sums["loss"][0], rtol=1e-5, atol=0)
    assert other.sums["loss"][1] == one.sums["loss"][1] == len(batch.texts)
    assert [row.predicted for row in other.rows] == [row.predicted for row in one.rows]
    assert [row.text for row in one.rows] == list(batch.texts)


def test_rates_are_edits_over_all_characters_and_words() -> None:
    class Fake(Transcription):
        def __init__(self) -> None: ...

    rows = [Transcribed(0, "", "abcd ef", "abxd ef", None), Transcribed(1, "", "a", "", None)]
    found = Fake().scores({"loss": 1.0}, rows)
    assert found == {
        "loss": 1.0,
        "cer": pytest.approx(2 / 8),
        "wer": pytest.approx(2 / 3),
        "exact_match": 0.0,
    }


def test_a_resumed_run_ends_like_one_that_was_not(lines: Path, check_resumption: Check) -> None:
    check_resumption(*TINY, "model.num_layers=1", step=17)


@pytest.mark.distributed
def test_two_processes_are_one_with_the_joined_batch(lines: Path, run_in_one_and_two: Summaries) -> None:
    one, two = run_in_one_and_two(*TINY, *STILL, "model.dropout=0", "trainer.max_steps=6", "trainer.max_epochs=-1")

    for name in ("test/loss", "test/cer"):
        assert one[name] == pytest.approx(two[name], rel=1e-4)


def test_a_beam_is_scored_in_a_test(lines: Path, configure: Configure) -> None:
    run(configure("run", *TINY, "trainer.max_epochs=1", "test=false", small=False))
    checkpoint = lines / "run" / "checkpoints" / "best.ckpt"
    more = ["data=lines", "data.files=lines", "data.split_fractions=[0,0,1]"]
    evaluated = ["task=transcription", f"checkpoint={checkpoint}", *more]
    found = score(configure("score", *evaluated, "task.num_beams=4", name="evaluate", small=False))
    assert found["test/cer"] > 0
    bundle = load_bundle(checkpoint)
    written = list(csv.reader((lines / "score" / "transcripts.csv").open()))[1:]
    for source, _, predicted in written[:5]:
        with torch.no_grad():
            parameters = bundle.network(bundle.processor.source.encode(source).unsqueeze(0))
        best = ctc_beam_search(parameters, num_beams=4)
        target: Any = bundle.processor.target
        assert target.decode(best.tokens[0, 0].tolist()) == predicted


def test_the_command_transcribes_with_a_language_model_too(lines: Path, configure: Configure, python: Process) -> None:
    run(configure("run", *TINY, "trainer.max_epochs=1", "test=false", small=False))
    (lines / "text.txt").write_text("\n".join(["ab cab", "cc ba", "abc"] * 60))
    language = ["task=char_lm", "data=text", "data.files=text.txt", "model.hidden_size=8", "network.embedding.size=4"]
    language += ["data.batch_size=4", "data.window=16", "data.random_windows=null", "trainer.max_steps=3", "test=false"]
    run(configure("lm", *language, *QUIET[1:], small=False))
    checkpoint, model = (str(lines / name / "checkpoints" / "last.ckpt") for name in ("run", "lm"))

    def command(*options: str) -> subprocess.CompletedProcess[str]:
        return python("-m", "unrolled", "transcribe", checkpoint, *options)

    (lines / "broken.png").write_text("no")
    plain = command("lines/0.png", "lines/1.png", "broken.png", "--on-error", "skip")
    assert plain.returncode == 0, plain.stderr
    assert [line.partition("\t")[0] for line in plain.stdout.splitlines()] == ["lines/0.png", "lines/1.png"]
    assert "1 of 3 files skipped" in plain.stderr
    full = command("lines/0.png", "--json", "--beam", "4", "--lm", model, "--lm-weight", "1", "--insertion-bonus", "2")
    found = json.loads(full.stdout)
    assert set(found) == {"source", "text", "log_probability", "labels"}
    assert "".join(each["label"] for each in found["labels"]) == found["text"]
    for wrong, said in (
        (["lines/0.png", "broken.png"], "broken.png: not readable as an image"),
        ([], "pass files to transcribe, or --stream RATE"),
        (["--stream", "8000"], "read as a whole by a LineColumns"),
        (["--stream", "8000", "--lm", model], "--stream is a greedy search"),
        (["lines/0.png", "--num-beams", "0"], "num_beams=0: expected an integer of 1 or more"),
        (["lines/0.png", "--lm", checkpoint], "not a Decoder"),
    ):
        refused = command(*wrong)
        assert refused.returncode == 2
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
