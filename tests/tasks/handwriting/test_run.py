"""Handwriting from the command line to a page: learned, scored, resumed, shared between processes, written."""

import csv
import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import matplotlib.image
import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.deployment import continue_strokes, write
from unrolled.deployment.command import main
from unrolled.training.run.runner import run, score
from unrolled_tasks.handwriting import Handwriting

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]
Check = Callable[..., None]
Summaries = Callable[..., tuple[dict[str, Any], dict[str, Any]]]
QUIET = [
    "task=handwriting",
    "trainer=cpu",
    "callbacks.progress=null",
    "callbacks.curves=null",
    "+trainer.enable_progress_bar=false",
    "model.dropout=0",
    "head.num_components=2",
    "task.num_tested=2",
    "networks.synthesis.decoder.hidden_size=12",
    "networks.prediction.hidden_size=12",
]
TINY = [*QUIET, "data=strokes", "data.files=x.jsonl", "data.batch_size=8"]
LETTERS = {"a": [[[0, 0], [1, 2], [2, 0], [3, 2]]], "b": [[[0, 4], [0, 0]], [[0, 1], [1, 0], [2, 2]]]}
ONCE = ["trainer.max_epochs=1", "callbacks.pictures=null"]


@pytest.fixture
def lines(folder: Path) -> Path:
    """Lines of two letters, a little shaken."""
    generator = torch.Generator().manual_seed(0)
    noise = partial(torch.randn, generator=generator)
    rows = []
    for _ in range(100):
        text = "".join("ab"[i] for i in torch.randint(2, (3,), generator=generator))
        strokes = [
            (torch.tensor(stroke) + torch.tensor([4.0 * n, 0]) + 0.1 * noise(len(stroke), 2)).tolist()
            for n, letter in enumerate(text)
            for stroke in LETTERS[letter]
        ]
        rows.append({"text": text, "strokes": strokes})
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def shape(strokes: list[list[tuple[float, float]]]) -> list[int]:
    return [len(stroke) for stroke in strokes]


def test_it_overfits_a_handful_and_writes_them(lines: Path, configure: Configure) -> None:
    rows = (lines / "x.jsonl").read_text().splitlines()
    (lines / "x.jsonl").write_text("\n".join(row for row in rows if '"aba"' in row or '"bab"' in row))
    options = [
        "trainer.max_epochs=200",
        "optimizer.lr=1e-2",
        "data.batch_size=16",
        "networks.synthesis.decoder.hidden_size=40",
    ]
    options += ["networks.synthesis.decoder.hidden_size=40", "networks.synthesis.decoder.attention.initial_step=0.3"]
    options += ["data.split_fractions=[0.6,0.2,0.2]"]
    options += ["trainer.val_check_interval=1.0", "trainer.check_val_every_n_epoch=50"]
    run(configure("run", *TINY, *options, small=False))

    found = summary(lines / "run")
    assert found["test/loss"] < -1.0  # an untrained network has 2 or more
    assert found["written/finished"] == 1.0
    for name in (*Handwriting.files, "pictures/written.svg", "pictures/written.png", "pictures/window.png"):
        assert (lines / "run" / name).stat().st_size > 10
    assert matplotlib.image.imread(lines / "run" / "window.png").shape[2] == 4
    table = list(csv.DictReader((lines / "run" / "lines.csv").open()))
    steps = sum(int(row["points"]) for row in table)
    assert sum(float(row["nats"]) for row in table) / steps == pytest.approx(found["test/loss"], abs=0.01)
    assert sum(float(row["nats"]) for row in table) / len(table) == pytest.approx(found["test/line_loss"], abs=0.1)
    bundle = load_bundle(lines / "run" / "checkpoints" / "best.ckpt")
    assert len(write(bundle, ["aba", "bab"], bias=1.0, generator=torch.Generator().manual_seed(0))) == 2
    tokenizer: Any = bundle.processor.source
    losses = {}
    for text in ("aba", "bab"):  # the text is read: that of another line explains the strokes worse
        strokes = next(row["strokes"] for row in map(json.loads, rows) if row["text"] == "aba")
        frames: Any = cast("Any", bundle.processor.target).encode(strokes)[None]
        network: Any = bundle.network
        with torch.no_grad():
            decoded = network(torch.tensor([tokenizer.encode(text)]), None, frames[:, :-1])
            losses[text] = float(network.decoder.head.losses(decoded.parameters, frames[:, 1:]).mean())
    assert losses["aba"] < losses["bab"] - 0.5


def test_a_resumed_run_ends_like_one_that_was_not(lines: Path, check_resumption: Check) -> None:
    check_resumption(*TINY, "callbacks.pictures=null", step=15)


@pytest.mark.distributed
def test_two_processes_are_one_with_the_joined_batch(lines: Path, run_in_one_and_two: Summaries) -> None:
    one, two = run_in_one_and_two(*TINY, "trainer.max_steps=6", "trainer.max_epochs=-1", "callbacks.pictures=null")

    assert one["test/loss"] == pytest.approx(two["test/loss"], rel=1e-4)
    assert one["test/line_loss"] == pytest.approx(two["test/line_loss"], rel=1e-4)


def test_scoring_and_the_command(
    lines: Path, configure: Configure, python: Process, capsys: pytest.CaptureFixture[str]
) -> None:
    run(configure("run", *TINY, *ONCE, small=False))
    checkpoint = lines / "run" / "checkpoints" / "best.ckpt"
    more = ["data=strokes", "data.files=x.jsonl", "data.split_fractions=[0,0,1]"]
    options = ["task=handwriting", f"checkpoint={checkpoint}", *more]
    assert score(configure("score", *options, name="evaluate", small=False))["test/loss"] < 10

    begin = ["write", str(checkpoint)]
    words = ["abba ab\nbb", "--seed", "1", "--line-length", "4", "--out"]
    done = python("-m", "unrolled", *begin, *words, "page.svg")
    assert done.returncode == 0, done.stderr
    assert main([*begin, *words, "same.svg"]) == 0
    assert (lines / "page.svg").read_bytes() == (lines / "same.svg").read_bytes()
    assert ElementTree.parse(lines / "page.svg").getroot().tag.endswith("svg")

    (lines / "broken.jsonl").write_text('{"text": "a", "strokes": [[[0, null]]]}\n')
    for words, message in [  # a text is joined to that of the primer by a space, which no line has had
        (["ab", "--out", "x.svg", "--prime", "x.jsonl"], "symbols that training data did not contain: ' '"),
        (["açb", "--out", "x.svg"], "the text has symbols that training data did not contain: 'ç'"),
        ([" ", "--out", "x.svg"], "the text has no words"),
        (["ab", "--out", "x.png"], "--out x.png: the picture is SVG"),
        (["ab", "--out", "x.svg", "--bias", "-1"], "bias=-1.0"),
        (["ab", "--out", "x.svg", "--line-length", "0"], "a line of 0 characters"),
        (["ab", "--out", "x.svg", "--prime", "broken.jsonl"], "broken.jsonl, line 1: stroke 1, point 1 is [0, None]"),
        (["ab", "--out", "x.svg", "--prime", "rhyme.txt"], "rhyme.txt, line 1:"),
        (["--out", "x.svg"], "drawing needs a Decoder of strokes"),
    ]:
        assert main([*begin, *words]) == 2, words
        assert message in capsys.readouterr().err
        assert not (lines / "x.svg").exists()


def test_without_texts_strokes_are_predicted_and_continued(
    lines: Path, configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(row) for row in (lines / "x.jsonl").read_text().splitlines()]
    (lines / "x.jsonl").write_text("\n".join(json.dumps({"strokes": row["strokes"]}) for row in rows))
    run(configure("run", *TINY, "data.mode=prediction", "trainer.max_epochs=3", small=False))

    assert summary(lines / "run")["test/loss"] < 3.5
    assert (lines / "run" / "pictures" / "written.svg").stat().st_size > 100
    checkpoint = lines / "run" / "checkpoints" / "best.ckpt"
    drawn = continue_strokes(load_bundle(checkpoint), 2, num_points=30)
    assert [sum(shape(strokes)) for strokes in drawn] == [31, 31]
    with pytest.raises(ValueError, match="count=0: expected an integer of 1 or more"):
        continue_strokes(load_bundle(checkpoint), 0)
    begin = ["write", str(checkpoint), "--out", "page.svg"]
    assert main([*begin, "--prime", "x.jsonl"]) == 0
    assert main([*begin, "ab"]) == 2
    assert "writing needs an EncoderDecoder of strokes with WindowAttention" in capsys.readouterr().err


def test_the_default_reads_its_own_lines(folder: Path, configure: Configure) -> None:
    run(configure("run", *QUIET, *ONCE, "data.hershey=64", "data.split_fractions=[0.5,0.25,0.25]", small=False))

    assert summary(folder / "run")["test/loss"] < 4.0


def test_derivatives_by_outputs_are_limited(lines: Path, configure: Configure) -> None:
    common = [*TINY, "trainer.max_epochs=1", "callbacks.pictures=null", "test=false", "scheduler=none"]
    common += ["callbacks/gradient_clip=none", "optimizer=sgd", "optimizer.lr=1"]
    for name, limit in (("free", "null"), ("wide", "1e6"), ("narrow", "1e-6")):
        options = [f"task.clip_outputs={limit}", "trainer.max_steps=1", "initialization=normal"]
        run(configure(name, *common, *options, small=False))

    free, wide, narrow = (
        load_bundle(lines / name / "checkpoints" / "last.ckpt").network.state_dict()["decoder.head.linear.bias"]
        for name in ("free", "wide", "narrow")
    )
    assert torch.equal(free, wide)
    start = narrow  # moved by less than a millionth
    assert (free - start).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["task.clip_outputs=0"], "clip_outputs=0"),
        (["task.bias=-1"], "bias=-1"),
        (["task.num_written=0"], "num_written=0"),
        (["head.end_of_stroke=false"], "needs a decoder with a MixtureHead of two coordinates and an end_of_stroke"),
        (["data.mode=both"], "both"),
        (["model=feedforward"], "needs a recurrent model, such as lstm, but FeedForward has no state"),
    ],
)
def test_what_cannot_be_is_refused_before_training(
    options: list[str], message: str, lines: Path, configure: Configure
) -> None:
    with pytest.raises(ValueError, match=message):
        run(configure("run", *TINY[:5], *TINY[6:], *options, small=False))
