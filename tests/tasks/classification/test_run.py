"""Classification from the command line to an answer: learned, scored, drawn, resumed, shared between processes."""

import csv
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from unrolled import QuantileHead, load_bundle
from unrolled.deployment import classify
from unrolled.training.run.runner import run, score

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]

QUIET = ["callbacks.progress=null", "callbacks.curves=null", "+trainer.enable_progress_bar=false", "trainer=cpu"]
SMALL = [*QUIET, "model.hidden_size=16", "model.num_layers=1", "model.dropout=0", "network.output_dropout=0"]
NO_DROPOUT = "encoder.frame.input_dropout=0"
WORDS = [
    "task=classification",
    "data=sentences",
    "data.files=texts.jsonl",
    "data.split_fractions=[0.8,0.1,0.1]",
    "encoder.token.hidden_size=null",
    "encoder.token.embedding.size=12",
    "encoder.token.token_dropout=0",
    "encoder.token.input_dropout=0",
    "network.wide=null",
    "task.groups=null",
    "optimizer.lr=1e-2",
    *SMALL,
]
DIGITS = ["task=classification", "encoder.frame.hidden_size=16", NO_DROPOUT, *SMALL, "optimizer.lr=1e-2"]


@pytest.fixture
def texts(folder: Path) -> Path:
    """Whether it is liked is said by the last of two opinions: a bag of words cannot tell."""
    rows = []
    for n in range(240):
        first, last = ("good", "bad") if n % 2 else ("bad", "good")
        rows.append({"text": f"{first} but then, in scene {n % 17}, {last}", "label": last, "stars": 4.0 + (n % 2)})
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def trained(texts: Path, configure: Configure) -> Path:
    run(configure("run", *WORDS, "trainer.max_epochs=4", "model=lstm", small=False))
    return texts / "run" / "checkpoints" / "best.ckpt"


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


@pytest.mark.parametrize("model", ["elman", "gru", "lstm"])
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
def test_every_cell_and_pooling_trains(texts: Path, configure: Configure, model: str, pooling: str) -> None:
    options = [f"model={model}", f"pooling={pooling}", "trainer.max_steps=3", "test=false"]

    run(configure("run", *WORDS, *options, small=False))

    assert (texts / "run" / "checkpoints" / "last.ckpt").is_file()


def test_order_is_learnt_by_a_recurrent_net_and_by_no_bag_of_words(texts: Path, configure: Configure) -> None:
    numbers = run(configure("lstm", *WORDS, "model=lstm", "trainer.max_epochs=8", small=False))
    bag = run(configure("bag", *WORDS, "model=feedforward", "trainer.max_epochs=8", small=False))

    assert numbers["test/accuracy"] == 1.0
    assert bag["test/accuracy"] <= 0.75


def test_a_run_leaves_predictions_pictures_and_mistakes(trained: Path) -> None:
    folder = trained.parents[1]

    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 24
    assert rows[0]["label"] in ("good", "bad")
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1.0, abs=1e-4)
    for name in ("confusion.png", "early.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    shares = (folder / "early.csv").read_text().splitlines()
    assert shares[0] == "share,accuracy"
    summary = json.loads((folder / "summary.json").read_text())
    right = sum(row["label"] == row["prediction"] for row in rows) / len(rows)
    assert summary["test/accuracy"] == pytest.approx(right)
    assert float(shares[-1].split(",")[1]) == pytest.approx(right)
    assert {"test/f1", "test/auroc", "test/calibration_error", "test/early_accuracy"} <= set(summary)
    assert "# Most confident wrong predictions" in (folder / "mistakes.md").read_text() or right == 1
    assert "at " in (folder / "samples.md").read_text()


@pytest.mark.parametrize(
    ("asked", "common", "rare"),
    [("null", 1.0, 1.0), ("balanced", 96 / (2 * 80), 96 / (2 * 16)), ("{rare: 15}", 1.0, 15.0)],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_labels_weigh_as_asked(
    texts: Path, configure: Configure, asked: str, common: float, rare: float, smoothing: float
) -> None:
    same = [{"text": "what", "label": "common" if n % 6 else "rare"} for n in range(120)]
    (texts / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in same))
    options = ["data.batch_size=200", "trainer.max_steps=1", "trainer.log_every_n_steps=1", "optimizer.lr=1e-12"]
    options += [f"task.class_weights={asked}", f"task.label_smoothing={smoothing}", "test=false"]

    run(configure("run", *WORDS, *options, small=False))  # one step with all 80 and 16 that are learned from

    (said,) = classify(load_bundle(texts / "run" / "checkpoints" / "last.ckpt"), ["what"])  # it has not moved
    nats = {label: -math.log(probability) for label, probability in said.values.items()}
    spread = smoothing / 2 * (common * nats["common"] + rare * nats["rare"])
    expected = (1 - smoothing) * (80 * common * nats["common"] + 16 * rare * nats["rare"]) / 96 + spread
    rows = csv.DictReader((texts / "run" / "metrics.csv").read_text().splitlines())
    (loss,) = [float(row["train/loss"]) for row in rows if row.get("train/loss")]
    assert loss == pytest.approx(expected, rel=1e-5)


def test_weights_of_unknown_labels_are_refused(texts: Path, configure: Configure) -> None:
    with pytest.raises(ValueError, match="label 'awful' is not among the labels of training"):
        run(configure("unknown", *WORDS, "task.class_weights={awful: 2}", small=False))
    with pytest.raises(ValueError, match="class_weights='balance' must be balanced"):
        run(configure("misspelt", *WORDS, "task.class_weights=balance", small=False))


def test_numbers_are_predicted_in_their_own_units(texts: Path, configure: Configure) -> None:
    options = ["task=regression", "data.target=stars", "data.target_type=number", "model=lstm", "trainer.max_epochs=12"]

    numbers = run(configure("run", *[w for w in WORDS if w != "task=classification"], *options, small=False))

    assert numbers["test/r2"] > 0.9
    assert numbers["test/mean_absolute_error"] < 0.2
    bundle = load_bundle(texts / "run" / "checkpoints" / "best.ckpt")
    (said,) = classify(bundle, ["bad but then, in scene 3, good"])
    assert said.label == ""
    assert abs(said.values["stars"] - 4.0) < 0.5


def test_another_head_predicts_numbers_too(texts: Path, configure: Configure) -> None:
    options = ["task=regression", "data.target=stars", "data.target_type=number", "model=lstm", "trainer.max_epochs=12"]
    quantiles = "network.head={_target_: unrolled.QuantileHead, _partial_: true, num_outputs: 1}"

    numbers = run(configure("run", *[w for w in WORDS if w != "task=classification"], *options, quantiles, small=False))

    assert numbers["test/mean_absolute_error"] < 0.4  # the median of the quantiles, in its own units
    bundle = load_bundle(texts / "run" / "checkpoints" / "best.ckpt")
    assert isinstance(bundle.network.head, QuantileHead)
    (said,) = classify(bundle, ["bad but then, in scene 3, good"])
    assert abs(said.values["stars"] - 4.0) < 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["network.head={_target_: unrolled.LabelsHead, _partial_: true, num_labels: 2}"], "need a CategoricalHead"),
        (["network.head={_target_: unrolled.NumbersHead, _partial_: true, num_outputs: 2}"], "need a CategoricalHead"),
        (["data.target_type=labels", "network.head=${head.label}"], "need a LabelsHead"),
        (
            ["task=regression", "data.target=stars", "data.target_type=number", "network.head=${head.label}"],
            "a NumbersHead",
        ),
    ],
)
def test_a_head_for_other_targets_is_refused(
    texts: Path, configure: Configure, options: list[str], message: str
) -> None:
    words = [w for w in WORDS if not (w == "task=classification" and "task=regression" in options)]
    with pytest.raises(ValueError, match=message):
        run(configure("run", *words, *options, small=False))


def test_several_labels_are_answered_each_by_itself(folder: Path, configure: Configure) -> None:
    told = [("a" * (n % 2), "b" * (n % 3 == 0)) for n in range(120)]
    rows = [{"text": f"{a} x {b}", "label": f"{a},{b}"} for a, b in told]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    numbers = run(configure("run", *WORDS, "data.target_type=labels", "trainer.max_epochs=40", small=False))

    assert numbers["test/exact"] == 1.0
    bundle = load_bundle(folder / "run" / "checkpoints" / "best.ckpt")
    labels = [set(filter(None, said.label.split(", "))) for said in classify(bundle, ["x", "a x b", "a x", "x b"])]
    assert labels == [set(), {"a", "b"}, {"a"}, {"b"}]


def test_word_vectors_are_taken_and_may_stay(texts: Path, configure: Configure) -> None:
    words = ["good", "bad", "but", "then"]
    lines = [f"{word} " + " ".join(str(round(0.1 * (n + 1), 2)) for _ in range(12)) for n, word in enumerate(words)]
    (texts / "vectors.txt").write_text("\n".join(["4 12", *lines]))
    options = ["task.vectors=vectors.txt", "task.frozen=true", "trainer.max_steps=3"]

    run(configure("run", *WORDS, *options, small=False))

    checkpoint = texts / "run" / "checkpoints" / "last.ckpt"
    tokenizer = load_bundle(checkpoint).processor.source
    embedding = weights(checkpoint)["network.encoder.embedding.weight"]
    for n, word in enumerate(words):
        torch.testing.assert_close(embedding[tokenizer.encode(word)[0]], torch.full((12,), 0.1 * (n + 1)))
    assert "vector for 4 of" in json.loads((texts / "run" / "summary.json").read_text())["vectors"]
    with pytest.raises(ValueError, match=r"embedding size is 7; set the size of the embedding to 12"):
        run(configure("wide", *WORDS, *options, "encoder.token.embedding.size=7", small=False))
    with pytest.raises(ValueError, match="vectors and frozen need an embedding"):
        run(configure("none", *DIGITS, "task.vectors=vectors.txt", small=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["task.label_smoothing=1"], "label_smoothing=1"),
        (["task.prefix_fractions=[0.5,1.5]"], "must be above 0 and at most 1"),
        (["task.class_weights={good:-1}"], "weights must be 0 or more"),
        (["task.class_weights={good:nan}"], "weights must be 0 or more and finite"),
        (["task.mixup=0.3"], "mixup=0.3 must be 0 or more, and 0 for text"),
        (["task.mixup=much"], "task.mixup=much: expected a number"),
        (["pooling.hidden_size=0", "pooling=attention"], "hidden_size is 0"),
        (["data.files=text.jsonl"], r"no file or folder text\.jsonl.*did you mean texts\.jsonl"),
        (["data.modality.unit=sentence"], "unit='sentence'"),
        (["encoder.token.embedding_dropout=1"], "dropout is 1"),
        (
            ["task=regression", "data.target=stars", "data.target_type=number", "task.label_smoothing=0.1"],
            "are for labels",
        ),
    ],
)
def test_what_cannot_end_well_does_not_begin(
    texts: Path, configure: Configure, options: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(configure("run", *WORDS, *options, small=False))
    assert not (texts / "run").exists()


def test_another_part_is_scored_without_training(trained: Path, texts: Path, configure: Configure) -> None:
    asked = ["task=classification", "data=sentences", "data.files=texts.jsonl", "trainer=cpu"]

    split = score(configure("split", f"checkpoint={trained}", *asked, "split=train", name="evaluate", small=False))
    whole = configure(
        "whole", f"checkpoint={trained}", *asked, "data.split_fractions=[0,0,1]", name="evaluate", small=False
    )
    score(whole)

    assert 0 <= split["test/accuracy"] <= 1
    assert len((texts / "whole" / "predictions.jsonl").read_text().splitlines()) == 240


def test_an_evaluation_cuts_as_the_run_did(texts: Path, configure: Configure) -> None:
    run(configure("seventh", *WORDS, "seed=7", "trainer.max_epochs=1", small=False))
    checkpoint = f"checkpoint={texts / 'seventh' / 'checkpoints' / 'best.ckpt'}"
    asked = [
        "task=classification",
        "data=sentences",
        "data.files=texts.jsonl",
        "data.split_fractions=[0.8,0.1,0.1]",
        "trainer=cpu",
    ]

    def tested(name: str, *options: str) -> str:
        score(configure(name, checkpoint, *asked, *options, name="evaluate", small=False))
        return (texts / name / "predictions.jsonl").read_text()

    expected = (texts / "seventh" / "predictions.jsonl").read_text()
    assert tested("again") == expected
    assert tested("other", "seed=8") != expected


def test_other_kinds_of_data_are_no_test_for_it(trained: Path, texts: Path, configure: Configure) -> None:
    asked = ["task=classification", "data=digits", "trainer=cpu", f"checkpoint={trained}"]

    with pytest.raises(
        ValueError, match="network reads with a SentenceTokenizer, and Images are read with an ImageSequence"
    ):
        score(configure("other", *asked, name="evaluate", small=False))


def test_regression_takes_numbers_of_any_data(texts: Path, configure: Configure) -> None:
    config = configure("run", *WORDS, "task=regression", "data.target=stars", small=False)

    assert config.data.target_type == "number"
    assert "test/r2" in run(config)


@pytest.mark.distributed
def test_two_processes_of_a_regression_equal_one_with_their_joint_batch(
    texts: Path, python: Process, train_script: str
) -> None:
    common = [*[word for word in WORDS if word != "task=classification"], "task=regression", "data.target=stars"]
    common += ["data.target_type=number", "model=gru", "trainer.max_steps=6"]
    one = python(train_script, *common, "data.batch_size=8", "run_dir=one")
    two = python(train_script, *common, "data.batch_size=4", "trainer=ddp", "trainer.accelerator=cpu", "run_dir=two")

    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    expected = weights(texts / "one" / "checkpoints" / "last.ckpt")
    for name, value in weights(texts / "two" / "checkpoints" / "last.ckpt").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    scores = [json.loads((texts / run / "summary.json").read_text()) for run in ("one", "two")]
    assert scores[1]["processes"] == 2
    for name in ("test/loss", "test/r2", "test/mean_absolute_error"):
        assert scores[0][name] == pytest.approx(scores[1][name], abs=1e-4)


def test_lines_are_classified_in_order(trained: Path, texts: Path, python: Process) -> None:
    lines = ["bad but then, in scene 3, good", "good", *["good but then , bad"] * 5]
    bundle = load_bundle(trained)
    expected = list(classify(bundle, lines, batch_size=2, ahead=3))

    table = python("-m", "unrolled", "classify", str(trained), stdin="".join(f"{line}\n" for line in lines))
    objects = python("-m", "unrolled", "classify", str(trained), "--json", stdin=f"{lines[0]}\n")

    assert [line.split("\t") for line in table.stdout.splitlines()] == [
        [line, said.label, f"{said.probability:.4f}"] for line, said in zip(lines, expected, strict=True)
    ]
    said = json.loads(objects.stdout)
    assert said["label"] == expected[0].label
    assert said["values"] == pytest.approx(expected[0].values)


def test_whoever_types_has_an_answer_before_the_next_line(trained: Path) -> None:
    command = [sys.executable, "-m", "unrolled", "classify", str(trained), "--ahead", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as typed:
        assert typed.stdin is not None
        assert typed.stdout is not None
        for line in ("good", "bad but good"):
            print(line, file=typed.stdin, flush=True)
            assert typed.stdout.readline().startswith(f"{line}\t")


def test_pictures_are_classified_from_files(folder: Path, configure: Configure, python: Process) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    run(configure("run", *DIGITS, "trainer.max_epochs=6", "model=lstm", small=False))
    checkpoint = folder / "run" / "checkpoints" / "best.ckpt"
    digits = load_digits()
    for n in range(30):
        Image.fromarray((digits.images[n] * 15.9375).astype("uint8")).save(folder / f"{n:02}.png")

    done = python("-m", "unrolled", "classify", str(checkpoint), *[f"{n:02}.png" for n in range(30)])

    said = [line.split("\t")[1] for line in done.stdout.splitlines()]
    right = sum(int(label) == target for label, target in zip(said, digits.target[:30], strict=True))
    assert right >= 25, done.stderr


def test_numbers_far_from_zero_are_learnt_only_if_they_are_scaled(folder: Path, configure: Configure) -> None:
    rows = [f"{n},{x},{5000 + 40 * (n % 9)}" for n in range(90) for x in [(n % 9) / 9] * 4]
    (folder / "series.csv").write_text("\n".join(["run,x,label", *rows]))
    common = [
        "task=regression",
        "data=series",
        "data.files=series.csv",
        "data.modality.series=run",
        "data.target_type=number",
    ]
    common += ["encoder.frame.hidden_size=null", "model=lstm", "trainer.max_epochs=20", "optimizer.lr=1e-2", *SMALL]

    scaled = run(configure("scaled", *common, small=False))
    raw = run(configure("raw", *common, "data.scaled=false", small=False))

    assert scaled["test/r2"] > 0.9
    assert raw["test/r2"] < 0
