"""Tagging from the command line to tags: learned, scored, resumed, shared between processes, used."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.deployment import tag
from unrolled.training.run.runner import run, score
from unrolled_tasks.tagging.task import Tagged, Tagging

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]
QUIET = ["task=tagging", "trainer=cpu", "callbacks.progress=null", "callbacks.curves=null"]
QUIET += ["+trainer.enable_progress_bar=false"]
TINY = [*QUIET, "data=tagged", "data.files=x.jsonl", "data.batch_size=8", "network.encoder.hidden_size=12"]
STILL = ["network.output_dropout=0", "network.encoder.input_dropout=0", "embedding.spelled.dropout=0"]


@pytest.fixture
def sentences(folder: Path) -> Path:
    """A tag depends on the word before: the second of two equal words is E."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(120):
        words = [f"w{i}" for i in torch.randint(3, (6,), generator=generator)]
        tags = ["E" if n and word == words[n - 1] else "D" for n, word in enumerate(words)]
        rows.append({"words": words, "tags": tags})
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("unit", ["spelled", "word"])
def test_it_learns_what_depends_on_the_word_before(unit: str, sentences: Path, configure: Configure) -> None:
    options = [
        f"data.unit={unit}",
        "trainer.max_epochs=30",
        "optimizer.lr=2e-2",
        "network.encoder.hidden_size=24",
        *STILL,
    ]
    run(configure("run", *TINY, *options, small=False))

    found = summary(sentences / "run")
    assert found["test/accuracy"] > 0.97
    assert found["baseline/accuracy"] < 0.8  # without the word before, D is the best guess for every word
    for name in Tagging.files:
        assert (sentences / "run" / name).stat().st_size > 10
    bundle = load_bundle(sentences / "run" / "checkpoints" / "best.ckpt")
    first, second = tag(bundle, ["w1 w1 w2", ["w0", "w0"]])
    assert [each.tag for each in first] == ["D", "E", "D"]
    assert [each.tag for each in second] == ["D", "E"]
    assert all(0.5 < each.probability <= 1.0 for each in first)


def test_the_default_learns_dates_and_scores_their_spans(folder: Path, configure: Configure) -> None:
    run(configure("run", *QUIET, "trainer.max_epochs=1", "data.dates=2000", "data.batch_size=16", small=False))

    found = summary(folder / "run")
    assert found["test/span_f1"] > 0.6
    assert found["test/precision"] > 0.6
    assert found["test/accuracy"] > 0.8


def test_a_resumed_run_ends_like_one_that_was_not(sentences: Path, configure: Configure) -> None:
    common = [*TINY, "model.num_layers=1", "test=false"]
    run(configure("whole", *common, "trainer.max_epochs=2", small=False))
    cut = ["trainer.max_steps=15", "trainer.max_epochs=-1", "scheduler=none"]
    run(configure("one", *common, "scheduler=none", "trainer.max_epochs=2", small=False))
    run(configure("part", *common, *cut, small=False))
    last = sentences / "part" / "checkpoints" / "last.ckpt"
    run(configure("rest", *common, "scheduler=none", "trainer.max_epochs=2", f"resume={last}", small=False))

    one, other = (load_bundle(sentences / name / "checkpoints" / "last.ckpt").network for name in ("one", "rest"))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.distributed
def test_two_processes_are_one_with_the_joined_batch(sentences: Path, python: Process, train_script: str) -> None:
    common = [*TINY, *STILL, "model.dropout=0", "trainer.max_steps=6", "trainer.max_epochs=-1"]

    one = python(train_script, *common, "data.batch_size=8", "hydra.run.dir=one")
    two = python(train_script, *common, "data.batch_size=4", "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two")

    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    assert summary(sentences / "one")["test/loss"] == pytest.approx(summary(sentences / "two")["test/loss"], rel=1e-4)


def test_scoring_and_the_command(sentences: Path, configure: Configure, python: Process) -> None:
    run(configure("run", *TINY, "trainer.max_epochs=1", small=False))
    checkpoint = sentences / "run" / "checkpoints" / "best.ckpt"
    more = ["data=tagged", "data.files=x.jsonl", "data.split_fractions=[0,0,1]"]
    found = score(configure("score", "task=tagging", f"checkpoint={checkpoint}", *more, name="evaluate", small=False))
    assert 0.0 <= found["test/accuracy"] <= 1.0

    def command(text: str, *options: str) -> subprocess.CompletedProcess[str]:
        return python("-m", "unrolled", "tag", str(checkpoint), *options, stdin=text)

    plain, rows = command("w1 w2\n\nw0\n"), command("w1 w2\n", "--json")
    assert plain.returncode == 0, plain.stderr
    lines = [line.split("\t") for line in plain.stdout.splitlines()]
    assert [line[0] for line in lines] == ["w1", "w2", "", "", "w0", ""]
    assert set(json.loads(rows.stdout)) == {"words", "tags", "probabilities"}
    wrong = command("w1\n", "--batch-size", "0")
    assert wrong.returncode == 2
    assert "batch_size=0" in wrong.stderr


def test_spans_count_if_all_their_words_and_their_kind_are_right() -> None:
    class Fake(Tagging):
        labels = property(lambda self: ["B-LOC", "B-PER", "I-PER", "O"])  # pyright: ignore[reportAssignmentType]

        def __init__(self) -> None: ...

    words = ["a", "b", "c", "d"]
    rows = [
        Tagged(0, words, ["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "I-PER", "O", "B-PER"]),  # one of two, one wrong
        Tagged(1, words, ["B-PER", "I-PER", "O", "O"], ["B-PER", "O", "O", "O"]),  # a part of one
    ]

    found = Fake().scores({"loss": 1.0}, rows)

    assert found == {
        "loss": 1.0,
        "precision": pytest.approx(1 / 3),
        "recall": pytest.approx(1 / 3),
        "span_f1": pytest.approx(1 / 3),
    }


@pytest.mark.parametrize("unit", ["spelled", "word"])
def test_word_vectors_are_taken_and_may_stay(unit: str, sentences: Path, configure: Configure) -> None:
    lines = [f"w{word} {word}.5 -1.0 {word}e-1" for word in range(2)] + ["other 1 2 3"]
    (sentences / "vectors.txt").write_text("\n".join(lines))
    options = [f"data.unit={unit}", f"embedding.{unit}.size=3", "task.vectors=vectors.txt", "task.frozen=true"]

    run(configure("run", *TINY, *options, "trainer.max_epochs=1", small=False))

    bundle = load_bundle(sentences / "run" / "checkpoints" / "best.ckpt")
    embedding: Any = bundle.network.encoder.embedding
    words: Any = bundle.processor.source.words if unit == "spelled" else bundle.processor.source.tokenizer
    weight = (embedding.words if unit == "spelled" else embedding).weight
    ids = [words.encode(f"w{word}")[0] for word in range(2)]
    assert torch.equal(weight[ids], torch.tensor([[0.5, -1.0, 0.0], [1.5, -1.0, 0.1]]))
    assert torch.allclose(weight[words.unknown], weight[ids].mean(0))
    assert summary(sentences / "run")["vectors"] == "vectors.txt has a vector for 2 of 3 words"


def test_word_vectors_need_words(sentences: Path, configure: Configure) -> None:
    (sentences / "vectors.txt").write_text("w1 1 2")
    with pytest.raises(ValueError, match="word vectors are for words, not for bytes; change the data's unit"):
        run(configure("run", *TINY, "data.unit=byte", "task.vectors=vectors.txt", small=False))
